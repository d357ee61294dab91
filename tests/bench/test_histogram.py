"""The generator's histogram, beside the exact quantiles."""

from __future__ import annotations

import math
import random
import subprocess
from pathlib import Path

import pytest

from loadtests.bench.programs import FLAGS, FOLDER

PARTS = (0.0, 0.5, 0.9, 0.99, 0.999, 1.0)

PROGRAM = """
#include "histogram.h"
#include <stdio.h>
static struct histogram histogram;
int main(void)
{
    long value;
    double part;
    while (scanf("%ld", &value) == 1 && value >= 0)
        histogram_record(&histogram, value);
    while (scanf("%lf", &part) == 1)
        printf("%ld\\n", (long)histogram_quantile(&histogram, part));
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("histogram")
    (folder / "main.c").write_text(PROGRAM)
    command = ["cc", *FLAGS, f"-I{FOLDER}", "-o", "main", "main.c", "-lm"]
    subprocess.run(command, cwd=folder, check=True)
    return folder / "main"


def quantiles(program: Path, values: list[int]) -> list[int]:
    said = " ".join(map(str, [*values, -1, *PARTS]))
    return [int(line) for line in subprocess.check_output([program], input=said, text=True).split()]


@pytest.mark.parametrize("seed", range(5))
def test_a_quantile_is_right_to_within_1_percent_and_never_too_low(program: Path, seed: int) -> None:
    chance = random.Random(seed)
    values = sorted(round(math.exp(chance.uniform(0, 40))) for _ in range(2_000))
    for part, found in list(zip(PARTS, quantiles(program, values), strict=True))[1:]:
        exact = values[math.ceil(part * len(values)) - 1]
        assert exact <= found <= exact * 1.01


def test_small_values_are_exact_and_an_empty_histogram_is_zero(program: Path) -> None:
    assert quantiles(program, [0, 1, 2, 255]) == [0, 1, 255, 255, 255, 255]
    assert quantiles(program, []) == [0] * len(PARTS)
