"""Questions that have an answer before a job is submitted."""

from pathlib import Path

from common.errors import AdvtagError
from condor.machines import refuse_unmet
from configs.sites import Site


def check_site(site: Site, folder: Path, *, anyway: bool = False) -> None:
    """Refuse what cannot work.

    Args:
        site: where the jobs are to run
        folder: of the submission
        anyway: do not compare the request with the machines of the pool

    Raises:
        AdvtagError: an image or archive that is not there, a folder that the schedd cannot write, or machines that
            the pool does not have
    """
    check_files(site)
    if not site.spool:
        for place in site.unwritable:
            if folder.resolve().is_relative_to(place):
                raise AdvtagError(
                    f"{folder}: the schedds of this site cannot write below {place}; choose an `output` elsewhere"
                    + (", or --option spool=true" if place == "/eos" else "")
                )
    if site.kind == "htcondor" and not anyway:
        refuse_unmet(site)


def check_files(site: Site) -> None:
    """Insist on the image and on the packed environment.

    Raises:
        AdvtagError: one is missing
    """
    if site.image is not None and site.image.startswith("/") and not Path(site.image).exists():
        raise AdvtagError(f"image: there is no {site.image} on this machine; build it as docs/clusters.md says")
    if site.archive is not None and not site.archive.expanduser().is_file():
        raise AdvtagError(f"archive: there is no {site.archive}; pack one as docs/clusters.md says")
