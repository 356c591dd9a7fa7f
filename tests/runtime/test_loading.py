"""Which engine of a bundle is chosen, and what is checked before it is touched."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from embed_runtime import BundleError, EngineError, Runtime, RuntimeConfig
from embed_runtime.bundle import describe_file, read_manifest, write_manifest
from embed_runtime.engines import Availability, Backend, Engine, LoadSpec, dummy, get_backend
from embed_runtime.engines.dummy import DummyEngine
from embed_runtime.errors import InputError, InputTooLongError
from embed_runtime.loading import LoadedBundle, load_bundle
from embed_runtime.manifest import EngineEntry, Manifest
from embed_runtime.types import EmbedRequest

MakeBundle = Callable[..., Path]
AddEngines = Callable[..., Path]

GRAPH = "graphs/packed.onnx"


class Machine:
    """The backends of a made-up machine, and a record of what was asked of them."""

    def __init__(self) -> None:
        self.backends: dict[str, Backend] = {}
        self.loaded: list[str] = []
        self.closed: list[str] = []

    def get_backend(self, name: str) -> Backend:
        return self.backends[name] if name in self.backends else get_backend(name)

    def add(
        self,
        name: str,
        *,
        reason: str = "",
        producer: str = "dummy 1",
        load_error: Exception | None = None,
        engine: Callable[[LoadSpec], Engine] | None = None,
        max_batch_tokens: int = 4096,
    ) -> None:
        """Install a backend that works like the dummy, but for what is given."""

        def load(spec: LoadSpec) -> Engine:
            self.loaded.append(name)
            if load_error is not None:
                raise load_error
            return dummy.BACKEND.load(spec) if engine is None else engine(spec)

        def probe() -> Availability:
            return Availability(reason=reason, producer=producer, can_build=False)

        self.backends[name] = replace(
            dummy.BACKEND, probe=probe, load=load, max_batch_tokens=max_batch_tokens
        )


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine()
    monkeypatch.setattr("embed_runtime.loading.get_backend", machine.get_backend)
    return machine


@pytest.fixture
def bundle_with(dummy_bundle: MakeBundle, seal: Callable[[Manifest], Manifest]) -> AddEngines:
    """Write a bundle with engines of some names, in this order; keywords change all entries."""

    def write(*names: str, **fields: Any) -> Path:
        folder = dummy_bundle()
        manifest = read_manifest(folder)
        [template] = manifest.engines
        files = dict(manifest.files)
        entries: list[EngineEntry] = []
        for name in names:
            own = {"backend": name, **fields}
            if "file" in own:
                (folder / own["file"]).write_bytes(b"a plan")
                files[own["file"]] = describe_file(folder / own["file"])
                own["files"] = (own["file"],)
            entries.append(msgspec.structs.replace(template, **own))
        manifest = msgspec.structs.replace(manifest, engines=tuple(entries), files=files)
        write_manifest(folder, seal(manifest))
        return folder

    return write


def load(path: Path, *, engine: str | None = None, **config: Any) -> LoadedBundle:
    return load_bundle(path, config=RuntimeConfig(**config), engine=engine)


class TestChoice:
    def test_the_first_that_can_run(self, machine: Machine, bundle_with: AddEngines) -> None:
        machine.add("fastest", reason="no GPU in this machine")
        machine.add("broken", load_error=BundleError("built for compute capability 8.9"))
        machine.add("failing", load_error=EngineError("out of memory"))
        machine.add("good")
        machine.add("slow")
        names = ("fastest", "no_such", "broken", "failing", "good", "slow")
        bundle = load(bundle_with(*names))
        assert bundle.entry.backend == "good"
        assert machine.loaded == ["broken", "failing", "good"]
        expected = ["no GPU", "unknown engine 'no_such'", "compute capability 8.9", "out of memory"]
        for name, words, line in zip(names, expected, bundle.skipped, strict=False):
            assert line.startswith(f"{name} ({GRAPH}): ")
            assert words in line
            assert "\n" not in line
        assert len(bundle.skipped) == 4

    def test_nothing_is_left(self, machine: Machine, bundle_with: AddEngines) -> None:
        machine.add("one", reason="no GPU")
        machine.add("two", reason="not installed: pip install embed-runtime[two]")
        with pytest.raises(BundleError) as caught:
            load(bundle_with("one", "two"))
        message = str(caught.value)
        assert f"one ({GRAPH}): no GPU; two ({GRAPH}): not installed: pip install" in message
        assert "\n" not in message

    def test_no_engine_at_all(self, bundle_with: AddEngines) -> None:
        with pytest.raises(BundleError, match="no engine at all; it has none"):
            load(bundle_with())

    def test_by_name(self, machine: Machine, bundle_with: AddEngines) -> None:
        machine.add("one")
        machine.add("two")
        folder = bundle_with("one", "two")
        assert load(folder, engine="two").entry.backend == "two"
        machine.add("two", reason="no GPU")
        with pytest.raises(BundleError, match=r"two .*: no GPU"):
            load(folder, engine="two")
        with pytest.raises(BundleError, match=r"no engine three; it has one .*, two"):
            load(folder, engine="three")

    def test_by_file(self, machine: Machine, bundle_with: AddEngines) -> None:
        machine.add("one")
        folder = bundle_with("one", file="model.plan")
        assert load(folder / "model.plan").entry.file == "model.plan"
        with pytest.raises(BundleError, match=r"no engine \(tokenizer\.json\); it has one"):
            load(folder / "tokenizer.json")
        with pytest.raises(BundleError, match=r"no engine two \(model\.plan\)"):
            load(folder / "model.plan", engine="two")

    def test_uncertified_only_when_named(self, bundle_with: AddEngines) -> None:
        folder = bundle_with("dummy", certified=False)
        with pytest.raises(BundleError, match=r"dummy .*: no certificate covers it"):
            load(folder)
        assert load(folder, engine="dummy").skipped == ()
        assert load(folder / GRAPH).entry.backend == "dummy"

    def test_a_plan_runs_only_under_its_own_library(
        self, machine: Machine, bundle_with: AddEngines
    ) -> None:
        machine.add("trt", producer="trt 2")
        with pytest.raises(BundleError, match="built by trt 1, here is trt 2; export"):
            load(bundle_with("trt", file="model.plan", producer="trt 1"))
        assert machine.loaded == []

    def test_a_graph_runs_under_any_version(
        self, machine: Machine, bundle_with: AddEngines
    ) -> None:
        machine.add("ort", producer="ort 2")
        assert load(bundle_with("ort", producer="ort 1")).skipped == ()

    @pytest.mark.parametrize("name", ["..errors", "os", "", "_cuda", "dummy.py"])
    def test_a_name_is_never_a_path(self, bundle_with: AddEngines, name: str) -> None:
        with pytest.raises(BundleError, match="unknown engine") as caught:
            load(bundle_with(name))
        assert "known engines: " in str(caught.value)

    def test_batch_size_is_the_smallest_limit(
        self, machine: Machine, bundle_with: AddEngines
    ) -> None:
        machine.add("one", max_batch_tokens=2000)
        folder = bundle_with("one", max_batch_tokens=1000)
        assert load(folder).max_batch_tokens == 1000
        assert load(folder, max_batch_tokens=500).max_batch_tokens == 500
        assert load(folder, max_batch_tokens=5000).max_batch_tokens == 1000
        machine.add("one", max_batch_tokens=900)
        assert load(folder).max_batch_tokens == 900


class TestFirstText:
    def test_an_engine_that_fails_is_skipped_and_closed(
        self, machine: Machine, bundle_with: AddEngines
    ) -> None:
        class Failing(DummyEngine):
            def close(self) -> None:
                machine.closed.append("failing")

        def fault(*_: object) -> None:
            raise RuntimeError("illegal instruction")

        machine.add(
            "failing",
            engine=lambda _: Failing(dimensions=32, hidden_size=32, normalize=True, fault=fault),
        )
        machine.add("good")
        bundle = load(bundle_with("failing", "good"))
        assert bundle.entry.backend == "good"
        assert "failed on its first text: illegal instruction" in bundle.skipped[0]
        assert machine.closed == ["failing"]

    def test_a_manifest_that_lies_about_dimensions(
        self, machine: Machine, bundle_with: AddEngines
    ) -> None:
        class Smaller(DummyEngine):
            def close(self) -> None:
                machine.closed.append("smaller")

        machine.add(
            "smaller", engine=lambda _: Smaller(dimensions=31, hidden_size=32, normalize=True)
        )
        machine.add("good")
        with pytest.raises(BundleError, match=r"gives vectors of shape \(1, 31\) .* 32 dimensions"):
            load(bundle_with("smaller", "good"))
        assert machine.closed == ["smaller"]


class TestChecks:
    @pytest.mark.parametrize("name", ["tokenizer.json", GRAPH])
    @pytest.mark.parametrize("damage", ["flip", "remove"])
    def test_nothing_is_loaded_from_a_damaged_bundle(
        self, machine: Machine, bundle_with: AddEngines, name: str, damage: str
    ) -> None:
        machine.add("one")
        machine.add("two")
        folder = bundle_with("one", "two")
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / name).unlink()
        if damage == "flip":
            (folder / name).write_bytes(content)
        with pytest.raises(BundleError, match=name):
            load(folder)
        assert machine.loaded == []

    def test_a_false_fingerprint(self, machine: Machine, bundle_with: AddEngines) -> None:
        machine.add("one")
        folder = bundle_with("one")
        manifest = read_manifest(folder)
        [entry] = manifest.engines
        # As if a plan for one GPU were passed off as one for another.
        lying = msgspec.structs.replace(entry, targets=("9.0",))
        write_manifest(folder, msgspec.structs.replace(manifest, engines=(lying,)))
        with pytest.raises(BundleError, match="the fingerprint of engine one"):
            load(folder)
        assert machine.loaded == []

    def test_files_of_other_engines_are_not_read(
        self, machine: Machine, bundle_with: AddEngines
    ) -> None:
        machine.add("one")
        folder = bundle_with("one", file="model.plan")
        (folder / GRAPH).unlink()
        assert load(folder).entry.file == "model.plan"

    def test_a_tokenizer_that_is_intact_but_not_what_the_manifest_says(
        self, dummy_bundle: MakeBundle
    ) -> None:
        manifest = read_manifest(dummy_bundle("other"))
        spec = msgspec.structs.replace(manifest.tokenizer, num_special_tokens=0)
        with pytest.raises(BundleError, match="special tokens"):
            load(dummy_bundle("second", tokenizer=spec))
        spec = msgspec.structs.replace(manifest.tokenizer, vocab_size=3)
        with pytest.raises(BundleError, match="does not fit the manifest: input 0: token id"):
            load(dummy_bundle("third", tokenizer=spec))


def test_runtime_tells_what_it_skipped(machine: Machine, bundle_with: AddEngines) -> None:
    machine.add("gpu", reason="no GPU")
    with Runtime(str(bundle_with("gpu", "dummy"))) as runtime:
        assert runtime.engine_entry.backend == "dummy"
        assert runtime.skipped_engines == (f"gpu ({GRAPH}): no GPU",)
        assert runtime.manifest.model.id == "tests/dummy"
        assert np.isfinite(runtime.embed("a")).all()


def test_a_shorter_maximum_is_the_models(dummy_bundle: Callable[..., Path]) -> None:
    text = "the model " * 20
    folder = dummy_bundle()
    with Runtime(folder, config=RuntimeConfig(max_model_len=5)) as runtime, Runtime(folder) as full:
        assert runtime.manifest.max_tokens == 5
        result = runtime.submit(EmbedRequest(inputs=[text])).result()
        assert result.num_tokens.tolist() == [5]
        cut = full.submit(EmbedRequest(inputs=[text], max_tokens=5)).result()
        assert np.array_equal(result.vectors, cut.vectors)
        with pytest.raises(InputTooLongError, match="5"):
            runtime.embed(text, truncate="NONE")


def test_a_longer_maximum_is_refused(dummy_bundle: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match="max_model_len=65 is above the 64 tokens"):
        Runtime(dummy_bundle(), config=RuntimeConfig(max_model_len=65))
