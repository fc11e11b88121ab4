"""DiffV2IQA once at the published sizes, with random weights: restorer, ViT-B/8-224, ResNet50, both branches, training.

Not a test, since it takes minutes and 4 GB: `python tests/core/methods/full_size_diff_v2.py [restoration steps]` (50 as
published, 4 by default) from anywhere but the repository's root.
"""

import logging
import resource
import sys
import time

import torch
from latent_critic.core.methods.diff_v2_iqa import DiffV2IQA
from latent_critic.core.methods.diff_v2_iqa_eyes import Eyes, weights_digest
from latent_critic.core.methods.diff_v2_iqa_head import untrained
from latent_critic.core.methods.diff_v2_iqa_settings import PUBLISHED
from latent_critic.core.nets.diff_v2 import DiffShape
from latent_critic.core.nets.diff_v2_eyes import DiffEyes
from latent_critic.core.nets.diff_v2_resnet import ResNet
from latent_critic.core.nets.diff_v2_vit import VisionTransformer
from latent_critic.core.nets.restorer import RestorerShape, build
from latent_critic.core.restoration.sr3 import Sr3Options, Sr3Restorer

logger = logging.getLogger("full_size")


def told(name, module):
    logger.info("%s: %.1f M parameters", name, sum(value.numel() for value in module.parameters()) / 1e6)


def main(steps):
    torch.manual_seed(0)
    net = build(RestorerShape(), 0).eval().requires_grad_(False)
    vit, resnet = VisionTransformer(PUBLISHED.vit), ResNet()
    eyes = Eyes(DiffEyes(vit, resnet).eval().requires_grad_(False), {"vit": weights_digest(vit)})
    restorer = Sr3Restorer(net, Sr3Options(steps=steps))
    head = untrained(PUBLISHED, DiffShape.published(), restorer=restorer, eyes=eyes.identity)
    head.nets.begin_at(0.5)
    for name, module in (("restorer", net), ("ViT-B/8-224", vit), ("ResNet50", resnet), ("VCG", head.nets.vcg)):
        told(name, module)
    told("VDA", head.nets.vda)
    image = torch.rand(3, PUBLISHED.side, PUBLISHED.side)
    start = time.process_time()
    (score,) = DiffV2IQA(restorer, head, eyes).score([image])
    logger.info("score %s, reason %s, %s", score.value, score.reason, dict(score.attributes))
    logger.info("%.0f s of processor time, %d calls of the restorer", time.process_time() - start, steps)
    head.nets.requires_grad_(True)
    with torch.no_grad():
        maps, vectors = eyes.network(image[None], image[None, None].expand(-1, 3, -1, -1, -1))
    (head.nets(maps, vectors).score - 0.7).square().sum().backward()
    found = [value.grad is not None and bool(value.grad.isfinite().all()) for value in head.nets.parameters()]
    logger.info("one step back: %d of %d gradients are finite", sum(found), len(found))
    logger.info("peak memory of the process: %.2f GB", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 4)
