"""Superclasses that are not known beforehand: a small network tells them, and hands the image to the specialised one."""

from snugnet.routing.making import Made, make_route
from snugnet.routing.route import Route, Router

__all__ = ["Made", "Route", "Router", "make_route"]
