"""Socket types of our own."""

from comfy_api.latest import io

#: A configured scorer, bound to whatever model it needs: ``core.methods.contract.Scorer``.
ScorerSocket = io.Custom("LC_SCORER")

#: The scores of a batch, in its order: ``core.records.ScoreBatch``.
ScoresSocket = io.Custom("LC_SCORES")

#: Inside Reroll Until Good only: ``Run`` and ``JudgedAttempt`` of ``nodes._reroll``, ``Calls`` of
#: ``core.hosts.comfyui.counting``.
SessionSocket = io.Custom("LC_REROLL")
AttemptSocket = io.Custom("LC_ATTEMPT")
CallsSocket = io.Custom("LC_CALLS")

#: Features → score, fitted: ``core.heads.head.Head``.
HeadSocket = io.Custom("LC_HEAD")

#: What a probed MODEL has recorded: ``core.hosts.comfyui.probe.Probe``.
ProbeSocket = io.Custom("LC_PROBE")

CATEGORY = "Latent Critic"
CATEGORY_MAKING = "Latent Critic/Making"
CATEGORY_SCORERS = "Latent Critic/Scorers"
CATEGORY_ADVANCED = "Latent Critic/Advanced"
