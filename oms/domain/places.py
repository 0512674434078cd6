"""Where addresses are: the centers of postal codes, and distances on the surface of the earth. Pure."""

from functools import cache
from math import asin, cos, radians, sin, sqrt

EARTH_KM = 6371.0088


@cache
def _centers() -> dict[str, tuple[float, float]]:
    """Latitude and longitude of the postal codes of the United States, as the package `zipcodes` carries them."""
    import zipcodes

    return {z["zip_code"]: (float(z["lat"]), float(z["long"])) for z in zipcodes.list_all() if z["lat"] and z["long"]}


def has_centers(country: str) -> bool:
    """Whether postal codes of a country are known here."""
    return country.upper() == "US"


def center_of(postal_code: str, country: str) -> tuple[float, float] | None:
    """Latitude and longitude of the center of a postal code; None where it is not known. ZIP+4 is read as its ZIP."""
    return _centers().get(postal_code.strip()[:5]) if has_centers(country) else None


def distance_km(lat: float, lon: float, other_lat: float, other_lon: float) -> float:
    """Along the surface of the earth (haversine)."""
    north, east = radians(other_lat - lat), radians(other_lon - lon)
    h = sin(north / 2) ** 2 + cos(radians(lat)) * cos(radians(other_lat)) * sin(east / 2) ** 2
    return 2 * EARTH_KM * asin(sqrt(min(1.0, h)))
