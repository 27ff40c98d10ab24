"""A service tells a registry that it is there, that it is well, and when it leaves."""

from meshlib.registration.consul import ConsulRegistration
from meshlib.registration.definition import HttpCheck, ServiceDefinition, TtlCheck

__all__ = ["ConsulRegistration", "HttpCheck", "ServiceDefinition", "TtlCheck"]
