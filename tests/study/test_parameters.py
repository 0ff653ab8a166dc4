"""Parameters: what papermill passes is understood, what makes no sense is refused in one line."""

from pathlib import Path
from typing import Annotated, Any

import nbformat
import papermill
import pytest
from pydantic import Field

from lab.checks import Count, Positive, Whole
from lab.errors import UsageError
from lab.hotloop import KernelName
from lab.servers.spec import DispatchName
from lab.study.parameters import ListOf, Parameters


class Sweep(Parameters):
    rates: Annotated[ListOf[Positive], Field(min_length=1)]
    workers: Count
    duration_s: Positive
    seed: Whole
    kernel: KernelName
    dispatch: DispatchName
    run_id: str


GOOD: dict[str, Any] = {
    "rates": [1, 2.5],
    "workers": 2,
    "duration_s": 5,
    "seed": 0,
    "kernel": "python",
    "dispatch": "shared",
    "run_id": "",
}


def read(**changes: Any) -> Sweep:
    return Sweep.from_notebook({"unrelated": object(), "In": [""]} | GOOD | changes)


def complaint(**changes: Any) -> str:
    with pytest.raises(UsageError) as error:
        read(**changes)
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("rates", ["[1, 2.5]", ["1", "2.5"], ("1e0", "25e-1"), [1, 2.5]])
def test_lists_arrive_as_papermill_passes_them(rates: Any) -> None:
    assert read(rates=rates).rates == (1.0, 2.5)


def test_one_value_is_a_list_of_one() -> None:
    assert read(rates=1e3).rates == (1000.0,)
    assert read(rates="1e3").rates == (1000.0,)


def test_numbers_arrive_as_text_or_as_other_numbers() -> None:
    assert read(workers="4").workers == 4
    assert read(workers=4.0).workers == 4


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rates": [1, 0]}, "rates[1] must be above 0, got 0"),
        ({"rates": "[1, 2"}, "rates must be a list such as [1, 2], got '[1, 2'"),
        ({"rates": []}, "rates must list at least 1, got []"),
        ({"rates": "fast"}, "rates[0] must be a number, got 'fast'"),
        ({"rates": [float("inf")]}, "rates[0] must be finite, got inf"),
        ({"rates": None}, "rates[0] must be a number, got None"),
        ({"workers": 0}, "workers must be at least 1, got 0"),
        ({"workers": 1.5}, "workers must be a whole number, got 1.5"),
        ({"workers": True}, "workers must be a number, got True"),
        ({"kernel": "fortran"}, "kernel must be 'python', 'numpy', 'numba' or 'sleep', got 'fortran'"),
        (
            {"dispatch": "random"},
            "dispatch must be 'shared', 'reuseport', 'round-robin' or 'least-busy', got 'random'",
        ),
        ({"duration_s": "soon"}, "duration_s must be a number, got 'soon'"),
        ({"rates": list(range(-99, -97))}, "rates[0] must be above 0, got -99"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_wrong_and_what_to_do(
    changes: dict[str, Any], words: str
) -> None:
    (name,) = changes
    to_do = f"set it in the parameters cell or with -p {name}"
    assert complaint(**changes).startswith(f"parameter {words}: {to_do}")


def test_a_name_that_papermill_took_for_a_number_is_refused_and_not_changed() -> None:
    """It reads `-p run_id 007` as 7, and `-r run_id 007` as 007."""
    assert complaint(run_id=7) == (
        "parameter run_id must be text, got 7: set it in the parameters cell or with -r run_id"
    )


def test_every_wrong_parameter_is_named() -> None:
    text = complaint(workers=0, kernel="fortran")
    assert "workers" in text
    assert "kernel" in text


def test_a_missing_parameter_is_named() -> None:
    with pytest.raises(UsageError, match="parameter workers is missing: set it in the parameters cell"):
        Sweep.from_notebook({name: value for name, value in GOOD.items() if name != "workers"})


def test_what_papermill_injects_under_a_wrong_name_is_refused() -> None:
    assert complaint(In=["", "x = 1", "# Parameters\nrate = 5\n"]).startswith(
        "unknown parameter 'rate': did you mean 'rates'?"
    )
    assert "this notebook has rates, workers" in complaint(In=["# Parameters\nzzz = 5\n"])


def test_only_the_last_injected_cell_counts_and_other_cells_do_not() -> None:
    assert read(In=["# Parameters\nrate = 5\n", "rate = 6", "# Parameters\nrates = 5\n"]).workers == 2


NOTEBOOK = """
from lab.checks import Positive
from lab.study.parameters import ListOf, Parameters
class Sweep(Parameters):
    rates: ListOf[Positive]
parameters = Sweep.from_notebook(globals())
print("rates", parameters.rates)
"""


def run_notebook(folder: Path, parameters: dict[str, Any]) -> Any:
    cells = [nbformat.v4.new_code_cell("rates = [1.0]", metadata={"tags": ["parameters"]})]
    cells.append(nbformat.v4.new_code_cell(NOTEBOOK))
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), folder / "in.ipynb")
    return papermill.execute_notebook(
        str(folder / "in.ipynb"),
        str(folder / "out.ipynb"),
        parameters,
        kernel_name="python3",
        progress_bar=False,
    )


def test_papermill_itself_passes_a_list_as_text(tmp_path: Path) -> None:
    done = run_notebook(tmp_path, {"rates": "[3, '4e0']".replace("'", '"')})
    assert done.cells[-1].outputs[0].text == "rates (3.0, 4.0)\n"


def test_papermill_ends_with_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(papermill.PapermillExecutionError) as error:
        run_notebook(tmp_path, {"ratse": [1]})
    assert error.value.traceback == ["UsageError: unknown parameter 'ratse': did you mean 'rates'?"]
