"""A live session that takes the cfg of hybrid quantization as edits of what calibration found."""

from __future__ import annotations

from pathlib import Path

from engine.files import hybrid_files
from engine.progress import Progress
from engine.session_cfg import checked
from engine.session_live import LiveSession
from engine.session_state import path_from
from engine.summaries import BuildSummary


class HybridSession(LiveSession):
    """As a LiveSession. After `hybrid_step2` the build is what the .data holds, and `edits` are what the cfg changes of
    it: ranges can go back, and the text of the cfg can be read again as it stands."""

    def hybrid_step2(
        self,
        model_input: str | Path,
        data_input: str | Path,
        model_quantization_cfg: str | Path,
        *,
        progress: Progress | None = None,
    ) -> BuildSummary:
        """As Session.hybrid_step2."""
        summary = super().hybrid_step2(model_input, data_input, model_quantization_cfg, progress=progress)
        stored = hybrid_files.read(path_from(model_input, "model_input"), path_from(data_input, "data_input"))
        self._take_stored(stored, str(model_input), "hybrid")
        text = hybrid_files.read_cfg(path_from(model_quantization_cfg, "model_quantization_cfg"))
        base, (edits, _) = self._current(), self._read(text)
        self._take_edited(checked(base.model(""), edits, base.built.config.target), "")
        return summary
