"""The server's settings: one pydantic model; flags, environment variables (`PICKAXE_…`) and help derive from it."""

from __future__ import annotations

import ipaddress
import json
import sys
from pathlib import Path
from typing import Literal

from pydantic import ByteSize, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from pickaxe.errors import Unmet
from pickaxe.host import Host
from pickaxe_services.records import Limits

MIB = 2**20


class Settings(BaseSettings):
    """What the operator decides.  Every field can be set as `PICKAXE_<FIELD>`."""

    model_config = SettingsConfigDict(env_prefix="PICKAXE_", frozen=True, extra="ignore")

    host: str = Field(default="127.0.0.1", description="Address to listen on, or unix:PATH.")
    port: int = Field(default=50051, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    root: Path = Field(
        default=Path("~/.local/state/pickaxe"), description="Directory of artifacts, jobs and what methods keep."
    )
    device: str = Field(default="auto", description="Where models run: auto, cpu or cuda:N.")
    threads: int = Field(default=0, ge=0, description="Threads of the ONNX runtime; 0: one per core.")
    memory_budget: ByteSize | None = Field(default=None, description="Memory for open models; unset: no limit.")
    lm_rows: int = Field(default=32, ge=1, description="Most samples that a language model decodes together.")
    lm_cache: ByteSize = Field(
        default=ByteSize(2048 * MIB), ge=1, description="Keys and values of a language model; requests wait for room."
    )
    lm_prefixes: ByteSize = Field(
        default=ByteSize(256 * MIB),
        ge=0,
        description="Prompts kept, per language model, for others that begin alike.",
    )
    models: Path | None = Field(default=None, description="Directory of models.")
    resources: dict[str, Path] = Field(default={}, description="Databases and folders that requests may name.")
    preload: tuple[str, ...] = Field(default=(), description="Methods to open before the server says it is ready.")

    max_items_per_request: int = Field(default=10_000, ge=1, description="Most items in one request.")
    max_items_waiting: int = Field(default=50_000, ge=1, description="Most items waiting for one opened method.")
    max_items_per_pool: int = Field(default=1_000_000, ge=1, description="Most items one stream may gather.")
    max_batch_items: int = Field(default=1024, ge=1, description="Most items merged across callers into one run.")
    max_message_bytes: ByteSize = Field(default=ByteSize(64 * MIB), ge=1024, description="Largest request message.")
    max_artifact_bytes: ByteSize = Field(
        default=ByteSize(16 * 1024 * MIB), ge=1, description="Largest uploaded artifact."
    )
    max_open_methods: int = Field(default=64, ge=1, description="Opened methods kept, by last use.")
    max_threads: int = Field(
        default=256, ge=4, description="Most threads that run methods, counting those stuck in a method that hangs."
    )
    runs_per_method: int = Field(
        default=2, ge=1, description="Calls of one opened method that run at once, where not merged."
    )
    max_streams: int = Field(default=1000, ge=1, description="Most concurrent calls on one connection.")
    max_jobs: int = Field(default=1, ge=1, description="Jobs that run at once; others wait.")
    max_jobs_waiting: int = Field(default=100, ge=0, description="Most jobs waiting.")
    longest_call: float = Field(
        default=600.0, gt=0, description="Seconds after which a call ends, whatever its deadline."
    )
    hang_grace: float = Field(
        default=5.0,
        ge=0,
        description="Seconds a method may go on after all its callers left, before its thread is replaced.",
    )
    drain_wait: float = Field(
        default=1.0, ge=0, description="Seconds between saying not-serving and refusing calls, for balancers to notice."
    )
    drain_grace: float = Field(
        default=30.0, ge=0, description="Seconds for running calls to finish once calls are refused."
    )

    tls_cert: Path | None = Field(
        default=None, description="Server certificate chain (PEM); read again when it changes."
    )
    tls_key: Path | None = Field(default=None, description="Server key (PEM).")
    tls_client_ca: Path | None = Field(
        default=None, description="CA (PEM) that clients' certificates must be signed by."
    )
    allow_insecure: bool = Field(default=False, description="Listen beyond loopback without TLS.")
    log_format: Literal["text", "json"] = Field(default="text", description="Form of the log lines.")
    job_command: tuple[str, ...] = Field(
        default=(sys.executable, "-m", "pickaxe_services.cli"), description="What runs a job's fit or index."
    )

    @property
    def directory(self) -> Path:
        return self.root.expanduser().absolute()

    @property
    def artifacts(self) -> Path:
        return self.directory / "artifacts"

    @property
    def address(self) -> str:
        """The target to bind."""
        if self.host.startswith("unix:"):
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def limits(self) -> Limits:
        return Limits(
            self.max_items_per_request,
            self.max_items_waiting,
            int(self.max_message_bytes),
            int(self.max_artifact_bytes),
            self.max_jobs,
        )

    def check(self) -> None:
        """Raise `Unmet` for a combination that must not be served."""
        if (self.tls_cert is None) != (self.tls_key is None):
            raise Unmet("TLS needs both a certificate and a key: give --tls-cert and --tls-key")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise Unmet("a client CA needs TLS: give --tls-cert and --tls-key too")
        if self.tls_cert is None and not self.allow_insecure and not _is_loopback(self.host):
            raise Unmet(
                f"{self.host} can be reached from other machines and there is no TLS: give --tls-cert and "
                "--tls-key, or say --allow-insecure",
                metadata={"host": self.host},
            )

    def make_host(self) -> Host:
        """The surroundings of methods on this server."""
        from pickaxe.lm import EngineSettings

        self.artifacts.mkdir(parents=True, exist_ok=True)
        return Host(
            device=self.device,
            threads=self.threads,
            memory_budget=self.memory_budget,
            engine=EngineSettings(self.lm_rows, int(self.lm_cache), int(self.lm_prefixes)),
            models=self.models,
            state=self.directory / "state",
            resources=self.resources,
            artifacts=self.artifacts,
        )

    def environment(self) -> dict[str, str]:
        """The variables that give a job's process the same surroundings."""
        shared = {
            "ROOT": str(self.directory),
            "DEVICE": self.device,
            "THREADS": str(self.threads),
            "RESOURCES": json.dumps({name: str(path) for name, path in self.resources.items()}),
        }
        if self.models is not None:
            shared["MODELS"] = str(self.models)
        if self.memory_budget is not None:
            shared["MEMORY_BUDGET"] = str(int(self.memory_budget))
        return {f"PICKAXE_{name}": value for name, value in shared.items()}


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.startswith("unix:"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
