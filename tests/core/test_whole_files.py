"""Files are whole or absent, and as readable as any other file of their user."""

import os

import numpy as np
import pytest
from latent_critic.core.errors import UnwritableFile
from latent_critic.core.files import whole_file, write_text
from safetensors.numpy import save_file


def test_a_file_is_whole_or_absent(tmp_path):
    kept = tmp_path / "kept.txt"
    write_text(kept, "before")

    def stopped():
        with whole_file(kept) as temporary:
            temporary.write_text("half")
            raise ValueError("stopped")

    with pytest.raises(ValueError, match="stopped"):
        stopped()
    assert kept.read_text() == "before"
    assert list(tmp_path.iterdir()) == [kept]


@pytest.mark.skipif(os.name != "posix", reason="rights are POSIX's")
def test_others_may_read_what_safetensors_wrote(tmp_path):
    plain = tmp_path / "plain"
    plain.touch()
    with whole_file(tmp_path / "head.safetensors") as temporary:
        save_file({"x": np.zeros(3)}, temporary)
    assert (tmp_path / "head.safetensors").stat().st_mode == plain.stat().st_mode


def test_a_place_that_takes_no_file_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UnwritableFile, match="name a place"):
        write_text(tmp_path / "file" / "below.txt", "")
    folder = tmp_path / "folder"
    (folder / "full").mkdir(parents=True)
    with pytest.raises(UnwritableFile, match="name a place"):
        write_text(folder, "")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
