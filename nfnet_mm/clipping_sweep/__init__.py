"""Find the clipping value of a config: short trainings for several values, optimizers and seeds."""

from .report import summarise, table, verdicts, write_report
from .sweep import sweep
from .trial import Outcome

__all__ = ['Outcome', 'summarise', 'sweep', 'table', 'verdicts', 'write_report']
