"""What the frontend reads: ids, names, tooltips, translations and help pages agree with the schemas."""

import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.host
ROOT = Path(__file__).resolve().parents[2]
PLAIN = {
    "IMAGE",
    "LATENT",
    "MASK",
    "STRING",
    "FLOAT",
    "INT",
    "BOOLEAN",
    "COMBO",
    "MODEL",
    "CLIP",
    "VAE",
    "CONDITIONING",
    "GUIDER",
    "SAMPLER",
    "SIGMAS",
}
OURS = {"LC_SCORER", "LC_SCORES", "LC_REROLL", "LC_ATTEMPT", "LC_CALLS", "LC_HEAD", "LC_PROBE"}


@pytest.fixture(scope="module")
def schemas(pack, comfyui):
    pack()
    found = {name: kind.GET_SCHEMA() for name, kind in comfyui.NODE_CLASS_MAPPINGS.items() if "LatentCritic" in name}
    assert len(found) >= 10
    return found


def test_ids_and_categories(schemas):
    for name, schema in schemas.items():
        assert name.startswith("LatentCritic")
        assert schema.category == "Latent Critic" or schema.category.startswith("Latent Critic/")
        assert schema.display_name
        assert schema.description


def test_every_input_and_output_explains_itself(schemas):
    for name, schema in schemas.items():
        for field in (*schema.inputs, *schema.outputs):
            assert field.tooltip, (name, field.id)
        for output in schema.outputs:
            assert output.id, name
            assert output.display_name, (name, output.id)
        ids = [field.id for field in (*schema.inputs, *schema.outputs)]
        assert len(ids) == len(set(ids)), name


def test_sockets_are_plain_or_ours(schemas):
    for schema in schemas.values():
        for field in (*schema.inputs, *schema.outputs):
            assert str(field.get_io_type()) in PLAIN | OURS | {"*"}


def test_translations_agree_with_the_schemas(schemas):
    written = json.loads((ROOT / "locales/en/nodeDefs.json").read_text(encoding="utf-8"))
    expected = {}
    for name, schema in schemas.items():
        words = expected[name] = {"display_name": schema.display_name, "description": schema.description}
        if schema.inputs:
            words["inputs"] = {
                field.id: {"name": field.id.replace("_", " "), "tooltip": field.tooltip} for field in schema.inputs
            }
        words["outputs"] = {
            str(place): {"name": field.display_name, "tooltip": field.tooltip}
            for place, field in enumerate(schema.outputs)
        }
    assert written == expected


def test_categories_and_sockets_have_names():
    words = json.loads((ROOT / "locales/en/main.json").read_text(encoding="utf-8"))
    assert set(words["dataTypes"]) == OURS
    assert {"Latent Critic", "Scorers", "Making"} <= set(words["nodeCategories"])


def test_every_node_has_a_help_page_that_names_every_input_and_output(schemas):
    pages = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "web/docs").glob("*.md")}
    assert set(pages) == set(schemas)
    for name, schema in schemas.items():
        page = pages[name]
        assert page.startswith(f"# {schema.display_name}\n")
        for field in schema.inputs:
            assert f"| `{field.id}` |" in page, (name, field.id)
            assert field.tooltip.replace("|", "\\|") in page, (name, field.id)
        for field in schema.outputs:
            assert f"| {field.display_name} |" in page, (name, field.id)
            assert field.tooltip in page, (name, field.id)


def test_images_are_taken_as_batches_and_lists(schemas):
    for name, schema in schemas.items():
        if any(field.id == "images" for field in schema.inputs):
            assert schema.is_input_list, name
