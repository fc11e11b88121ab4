import pytest
from latent_critic.core.errors import BadInput
from latent_critic.core.selection.filtering import one_per_image, take


def test_one_item_stands_for_all():
    assert one_per_image(["a"], 3, "prompts") == ["a", "a", "a"]
    assert take(["a"], [0, 2], 3, "prompts") == ["a"]
    assert take(["a"], [], 3, "prompts") == []


def test_items_follow_their_images():
    assert take(["a", "b", "c"], [2, 0], 3, "prompts") == ["c", "a"]
    assert take(["a"], [0], 1, "prompts") == ["a"]
    assert take(["a"], [], 1, "prompts") == []


@pytest.mark.parametrize("items", [[], ["a", "b"], ["a"] * 4])
def test_a_list_of_the_wrong_length_is_refused(items):
    with pytest.raises(BadInput, match="3 prompts"):
        one_per_image(items, 3, "prompts")
    with pytest.raises(BadInput, match="3 prompts"):
        take(items, [0], 3, "prompts")
