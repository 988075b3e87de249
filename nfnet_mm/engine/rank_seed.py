"""Let every process of a run draw random numbers of its own."""

from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner

from nfnet_mm.registry import HOOKS

from .seeded_items import seed_generators


@HOOKS.register_module()
class RankSeedHook(Hook):
    """Seed each process by the run's seed, its rank and the iteration that training begins at.

    mmengine seeds all processes alike, so that each drops the same paths and features of its part of the batch, which
    correlates the gradients that are averaged. What shuffles the data has seeds of its own and stays common. The first
    process of a run from its start, and so a run of one process, draws what it would without this hook; one that
    resumes with all generators' states (:class:`~.exact_resume.ExactResumeHook`) goes on with those.

    A config that sets ``randomness.diff_rank_seed`` keeps what it asks for: True is mmengine's own way to distinct
    numbers, False lets all processes draw the same ones.
    """

    priority = 'LOW'  # before resumed states are put back

    def before_train(self, runner: Runner) -> None:
        asked = runner._randomness_cfg.get('diff_rank_seed')
        rank = 0 if asked is False else get_rank()
        if runner.iter or (rank and asked is None):
            seed_generators(f'{runner.seed}/{rank}/{runner.iter}', on_devices=True)
