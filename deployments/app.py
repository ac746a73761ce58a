"""Builds the Serve application of `serve_config.yaml`. Options are there, wiring is here."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve import Application

from deployments.embedder.replica import EmbedderReplica
from deployments.index.replica import IndexReplica
from deployments.ingress.replica import IngressReplica
from deployments.ingress_settings import IngressSettings
from deployments.places import pages_not_to_build
from deployments.settings import Settings, SettingsError, load_settings
from engine.index_options import IndexOptions
from engine.model.files import CONFIG_FILE, default_model_dir, read_model_manifest
from engine.records import ModelIdentity
from engine.recovery.precision import precision_of


def build_app(args: Mapping[str, Any]) -> Application:
    """Wire the three deployments.

    Args:
        args: settings by field name, from `args:` of the configuration; they win over the
            environment, which is read here and nowhere else.

    Raises:
        SettingsError: a setting is wrong.
        ModelNotFoundError: the model is not set up.
    """
    settings = load_settings(**args)
    model_dir = settings.model_dir or default_model_dir(os.environ, Path.home())
    identity = _identity(settings, model_dir)
    embedder = serve.deployment(EmbedderReplica, name="Embedder").bind(
        settings, model_dir, identity.precision, fingerprint=identity.fingerprint
    )
    index = serve.deployment(IndexReplica, name="Index").bind(
        settings,
        IndexOptions(
            data_dir=settings.data_dir,
            workspace_dir=settings.workspace_dir,
            unbuilt_names=pages_not_to_build(settings.workspace_dir),
            identity=identity,
            dedup_threshold=settings.dedup_threshold,
            exact_below=settings.exact_below,
            compact_from=settings.compact_from,
            cache_after=settings.cache_after,
            index_memory_bytes=settings.index_memory_bytes,
            longest_write_s=settings.request_timeout_s,
            max_backups=settings.max_backups,
            max_pending_jobs=settings.max_queued_writes,
        ),
        model_dir,
        embedder,
    )
    ingress = serve.ingress()(IngressReplica)
    return serve.deployment(ingress, name="Ingress").bind(
        settings, _ingress_settings(settings, identity), embedder, index
    )


def _ingress_settings(settings: Settings, identity: ModelIdentity) -> IngressSettings:
    return IngressSettings(
        workspace_dir=str(settings.workspace_dir),
        version=version("faiss-memory"),
        model_name=identity.name,
        dim=identity.dim,
        api_key=settings.api_key.get_secret_value(),
        public_url=settings.public_url or f"http://localhost:{settings.port}",
        cors_origins=settings.cors_origins,
        allowed_hosts=settings.allowed_hosts,
        max_body_bytes=settings.max_body_bytes,
        import_chunks=settings.import_chunks,
        cloud_sync_prefix=settings.cloud_sync_prefix if settings.cloud_sync_enabled else None,
    )


def _identity(settings: Settings, model_dir: Path) -> ModelIdentity:
    """What set-up recorded; the session need not be loaded to know it."""
    manifest = read_model_manifest(model_dir)
    if settings.model_name != manifest.name:
        raise SettingsError(
            f"MODEL_NAME={settings.model_name}: the model in {model_dir} is {manifest.name}; "
            "unset MODEL_NAME, or set MODEL_DIR to a directory that holds the other model"
        )
    config = json.loads((model_dir / CONFIG_FILE).read_bytes())
    return ModelIdentity(
        name=manifest.name,
        dim=config["hidden_size"],
        precision=precision_of(settings.data_dir, settings.model_precision),
        fingerprint=manifest.fingerprint,
    )
