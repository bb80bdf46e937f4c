"""Templates of HTML pages that open offline, whatever the data say."""

import jinja2


def page_environment(package: str, folder: str) -> jinja2.Environment:
    """The templates of a package's folder: texts are escaped, and an unknown name raises."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader(package, folder),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
