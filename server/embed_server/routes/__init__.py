"""Endpoints: one file each, exporting `router`; the folder is the registry."""

import pkgutil
from importlib import import_module

from fastapi import APIRouter


def all_routers() -> list[APIRouter]:
    """Collect the router of every module in this folder."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return [import_module(f"{__name__}.{name}").router for name in names]
