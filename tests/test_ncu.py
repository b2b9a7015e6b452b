"""What is asked of Nsight Compute and read from its answer, which a program of the same name gives here."""

import itertools
import json
import sys

import pytest
import torch

from bench import profile
from extrap_kernels import backends, ncu

# Sectors of loads and stores, bytes that memory reads and writes.
COUNTED = dict(zip([*ncu.SECTORS, *ncu.MEMORY], ("2,000", "1,000", "20,000", "10,000")))


@pytest.fixture
def fake_ncu(monkeypatch, tmp_path):
    """Puts an ``ncu`` on PATH that prints lines to each stream; install() gives what reads how it was called."""

    def install(lines, errors=(), status=0):
        calls = tmp_path / "calls"
        calls.touch()
        program = tmp_path / "ncu"
        program.write_text(
            f"#!{sys.executable}\n"
            "import json, sys\n"
            f"print(json.dumps(sys.argv[1:]), file=open({str(calls)!r}, 'a'))\n"
            f"sys.stdout.writelines({[line + chr(10) for line in lines]})\n"
            f"sys.stderr.writelines({[line + chr(10) for line in errors]})\n"
            f"sys.exit({status})\n"
        )
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        return lambda: [json.loads(line) for line in calls.read_text().splitlines()]

    return install


def printed(metrics, *kernels):
    """The lines that ncu prints about kernels: a name and a value of each metric."""
    rows = [["ID", "Process ID", "Kernel Name", *metrics], ["", "", "", *("unit" for _ in metrics)]]
    rows += [[str(i), "77", *kernel] for i, kernel in enumerate(kernels)]
    lines = [",".join(f'"{cell}"' for cell in row) for row in rows]
    return ["==PROF== Connected to process 77 (python)", "what the code prints", "==PROF== Disconnected", *lines]


def test_kernels_with_their_metrics(fake_ncu):
    calls = fake_ncu(printed(COUNTED, ["square_sums<a, b>", *COUNTED.values()], ["step_kernel", "1", "2", "3", "4"]))
    first, second = ncu.count("some = code", list(COUNTED))
    assert (first["Kernel Name"], second["Kernel Name"]) == ("square_sums<a, b>", "step_kernel")
    assert ncu.number(first, *ncu.SECTORS) == 3000 and ncu.number(second, *ncu.MEMORY) == 7
    (arguments,) = calls()
    assert arguments[-3:] == [sys.executable, "-c", "some = code"]
    assert arguments[arguments.index("--metrics") + 1] == ",".join(COUNTED)


def test_figure(fake_ncu):
    """3,000 sectors of 32 bytes and 30,000 bytes for 4,000 parameters."""
    metrics = {**COUNTED, ncu.ISSUE: "29.7"}
    calls = fake_ncu(printed(metrics, ["run_kernel", *metrics.values()]))
    said = ncu.figure(torch.device("cuda:1"), "triton", 4000)
    assert said == "24.00 bytes a parameter, 7.50 of them in device memory; 30% of the issue slots"
    assert calls()[0][-1].endswith("take_step('cuda:1', 'triton', 4000)")


@pytest.mark.parametrize(
    "lines, errors, status, last",
    [
        (["==PROF== Connected", "==ERROR== no permission"], [], 1, "==ERROR== no permission"),
        (printed(COUNTED), ["Traceback", "ValueError: of the code"], 1, "ValueError: of the code"),
        (["==WARNING== No kernels were profiled."], [], 0, "==WARNING== No kernels were profiled."),
    ],
    ids=["ncu", "code", "no kernels"],
)
def test_failure_is_its_last_line(fake_ncu, lines, errors, status, last):
    fake_ncu(lines, errors, status)
    with pytest.raises(RuntimeError) as raised:
        ncu.count("", list(COUNTED))
    assert str(raised.value) == f"ncu says {last!r}"
    assert ncu.figure(torch.device("cuda"), "cuda", 1) == f"unknown: ncu says {last!r}"


def test_missing_ncu(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    missing = "there is no ncu on PATH; install Nsight Compute, or put its folder on PATH"
    with pytest.raises(RuntimeError, match=f"^{missing}$"):
        ncu.count("", [])
    assert ncu.figure(torch.device("cuda"), "cuda", 1) == f"unknown: {missing}"


@pytest.fixture
def gpu(monkeypatch):
    """Backends that count as available, on a GPU that counts as there."""

    def pretend(*available):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(backends, "missing_reason", lambda name: None if name in available else f"no {name} here")

    return pretend


def test_rows_of_the_profile(gpu, fake_ncu):
    """At the bandwidth of an H100, 33.5 G elements of 100 bytes a second; of an RTX 4090, 10.08 G."""
    gpu("cuda", "triton")
    values = {
        profile.TIME: "2,000,000",
        **dict(zip(ncu.SECTORS, (str(60 * profile.NUMEL // 32), str(40 * profile.NUMEL // 32)))),
        **{metric: str(profile.NUMEL) for metric in ncu.MEMORY},
        profile.REGISTERS: "48",
        profile.INSTRUCTIONS: f"{50 * profile.NUMEL // 32:,}",
        profile.DOUBLES: str(profile.NUMEL // 32),
        ncu.ISSUE: "41.4",
    }
    kernels, titles = [], []
    for case in profile.cases():
        if case.rule in ("lars", "lamb") or "max_grad_norm" in case.options or "noise_scale" in case.options:
            kernels.append("run_kernel<SumKernel>")
            titles.append(f"{case.title}: sums")
        kernels.append("run_kernel<StepKernel>")
        titles.append(case.title)
    calls = fake_ncu(printed(values, *([name, *values.values()] for name in kernels)))
    rows = profile.rows()
    assert [call[-1].split("; ")[1] for call in calls()] == ["take_steps('cuda')", "take_steps('triton')"]
    assert [(row["backend"], row["kernel"]) for row in rows] == list(itertools.product(("cuda", "triton"), titles))
    # Multiprocessors times GHz. Each issues for 4 * 32 threads a cycle, and float64 for 64 and for 2.
    h100, rtx4090 = 132 * 1.98, 128 * 2.52
    assert rows[0] == {
        "backend": "cuda",
        "kernel": "ExtrapSGD, fp32",
        "µs": pytest.approx(2000),
        "B/param, sectors": pytest.approx(100),
        "B/param, memory": pytest.approx(2),
        "GB/s": pytest.approx(32),
        "registers": 48,
        "instructions": pytest.approx(50),
        "fp64": pytest.approx(1),
        "issue slots": "41%",
        "model: slots of H100": f"{100 * 50 * 33.5 / (4 * 32 * h100):.0f}%",
        "fp64 of H100": f"{100 * 33.5 / (64 * h100):.0f}%",
        "model: slots of RTX 4090": f"{100 * 50 * 10.08 / (4 * 32 * rtx4090):.0f}%",
        "fp64 of RTX 4090": f"{100 * 10.08 / (2 * rtx4090):.0f}%",
    }


def test_titles_of_the_profile_name_the_options():
    titles = [case.title for case in profile.cases()]
    assert len(set(titles)) == len(titles)
    assert {
        "ExtrapSGD, bf16, noise=gaussian, noise_scale=filter",
        "ExtrapSGD, fp32, max_grad_norm=1.0",
        "ExtrapAdamW, bf16, state_dtype=bfloat16",
    } < set(titles)


def test_profile_without_a_backend(gpu):
    gpu()
    with pytest.raises(RuntimeError, match="^backend 'cuda': no cuda here; backend 'triton': no triton here$"):
        profile.rows()
