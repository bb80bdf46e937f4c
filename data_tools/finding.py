"""Finding: one thing about a dataset that a person should look at before training on it."""

from typing import Literal

from pydantic import Field

from data_tools.conventions import Declaration
from data_tools.errors import describe


class Finding(Declaration):
    """One result of a check; `str()` gives the sentence."""

    rule: str = Field(description="Name of the check, e.g. 'not_finite'.")
    severity: Literal["error", "warning"] = Field(
        description="error: training on it is wrong; warning: it may be meant."
    )
    where: str = Field(description="The episode's name, or the file or dataset as a whole.")
    step: int | None = Field(None, description="The step, when one step is to blame.")
    value: str = Field(description="What was found.")
    threshold: str = Field(description="What the check expects.")
    remedy: str = Field(description="What to do.")

    def __str__(self) -> str:
        where = self.where if self.step is None else f"{self.where}, step {self.step}"
        fault = describe(where, self.value, self.threshold, self.remedy)
        return f"{self.severity} [{self.rule}] {fault}"
