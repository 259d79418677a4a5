"""Reads the .rknn files that the vendor's compiler writes, as far as they can be read: everything but the weights."""

from engine.files.vendor.model import VendorModel
from engine.files.vendor.reading import is_vendor_file, read, refusal

__all__ = ["VendorModel", "is_vendor_file", "read", "refusal"]
