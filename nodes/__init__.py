"""ComfyUI nodes: widgets only. One file per story; this list is the whole pack."""

from comfy_api.latest import ComfyExtension, io

from .best_of import BestOfN
from .best_of_custom import BestOfNCustom
from .blend_scorers import BlendScorers
from .contact_sheet import ContactSheet
from .diff_v2_iqa import DiffV2IQAScorer
from .dp_iqa import DpIqaScorer
from .fit_head import FitHead
from .fit_probe_head import FitProbeHead
from .gate import Gate
from .genziqa import GenzIQAScorer
from .heat_map import QualityHeatMap
from .keep_best_of_session import KeepBestOfSession
from .lgdm import LgdmScorer
from .load_embedded import LoadEmbeddedModel
from .load_folder import LoadImagesFromFolder
from .load_head import LoadHead
from .pick_best import PickBestImages
from .probe_model import ProbeModel
from .prompt_alignment import PromptAlignmentNode
from .quality_judge import QualityJudge
from .reject import RejectLowQuality
from .reroll import RerollUntilGood
from .reroll_sample import RerollSample
from .reroll_step import CountCalls, RerollAttempt, RerollStep
from .restore_for_comparison import RestoreForComparison
from .save_scored import SaveScoredImage
from .score_from_probe import ScoreFromProbe
from .score_images import ScoreImages
from .score_latents import ScoreLatents
from .score_report import ScoreReport
from .zero_shot import ZeroShotScorer


class LatentCriticExtension(ComfyExtension):
    """Everything that ComfyUI loads from this pack."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """The explicit list of nodes."""
        return [
            PickBestImages,
            ScoreImages,
            RejectLowQuality,
            ScoreReport,
            ContactSheet,
            SaveScoredImage,
            KeepBestOfSession,
            LoadImagesFromFolder,
            RerollUntilGood,
            BestOfN,
            BestOfNCustom,
            Gate,
            RerollStep,
            RerollAttempt,
            RerollSample,
            CountCalls,
            QualityJudge,
            ZeroShotScorer,
            GenzIQAScorer,
            DpIqaScorer,
            DiffV2IQAScorer,
            LgdmScorer,
            LoadHead,
            FitHead,
            BlendScorers,
            ScoreLatents,
            ProbeModel,
            ScoreFromProbe,
            FitProbeHead,
            QualityHeatMap,
            RestoreForComparison,
            PromptAlignmentNode,
            LoadEmbeddedModel,
        ]


async def comfy_entrypoint() -> ComfyExtension:
    """ComfyUI's door into the pack."""
    return LatentCriticExtension()
