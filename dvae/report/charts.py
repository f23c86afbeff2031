"""Charts for a page, as figures of Plotly's: plain ``data`` and ``layout``, which Plotly's own script draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

from dvae.report.curves import Curve, binned, visible_range

if TYPE_CHECKING:
    from dvae.lab.variance import VarianceReport

__all__ = ["Band", "Looks", "band_chart", "curve_chart", "variance_chart"]

# Seen on white and on black, and told apart by those who see few colours.
_COLOURS = ("#3987d6", "#e0812b", "#2fa37a", "#c95fa5", "#8f7be0", "#a88b1f", "#d9534f", "#3ba7b8")
_DASHES = ("solid", "dash", "dot", "dashdot")
_GRID = "rgba(128, 128, 128, 0.25)"


Looks = Mapping[str, tuple[int, int]]
"""By the name of a line its colour and its pattern, each a number from 0 on: a run looks alike in all charts."""


class Band(NamedTuple):
    """Values along x, and how far the band around each reaches to both sides; 0 for none."""

    x: Sequence[float]
    mean: Sequence[float]
    spread: Sequence[float]


def curve_chart(curves: Mapping[str, Curve], unit: str, against: str = "steps", looks: Looks | None = None) -> dict[str, Any]:
    """Quantities along runs, each with the band of its replicas' standard deviation; a point is a mean over a 300th of the run.

    Arguments:
        curves: by name, at least one.
        unit: title of the axis.
        against: "steps" or "seconds".
        looks: of the lines, by default in their order.
    """
    bands = {}
    for name, curve in curves.items():
        places = curve.steps if against == "steps" else curve.seconds
        bands[name] = Band(binned(places), binned(curve.elbo), binned(curve.spread))
    figure = band_chart(bands, "updates" if against == "steps" else "seconds of the run", unit, looks=looks)
    figure["layout"]["yaxis"]["range"] = list(visible_range(list(curves.values())))
    return figure


def band_chart(bands: Mapping[str, Band], x: str, y: str, *, from_zero: bool = False, looks: Looks | None = None) -> dict[str, Any]:
    """Lines with bands.

    Arguments:
        bands: by name.
        x, y: titles of the axes.
        from_zero: whether zero is to be seen, so that heights can be compared.
        looks: of the lines, by default in their order.
    """
    data: list[dict[str, Any]] = []
    for number, (name, band) in enumerate(bands.items()):
        place, pattern = (looks or {}).get(name, (number, number // len(_COLOURS)))
        colour = _COLOURS[place % len(_COLOURS)]
        if any(band.spread):
            data.append(_area(band, colour, str(number)))
        data.append(
            {
                "type": "scatter",
                "name": _plain(name),
                "x": list(band.x),
                "y": list(band.mean),
                "mode": "lines+markers" if len(band.x) < 20 else "lines",
                "line": {"color": colour, "dash": _DASHES[pattern % len(_DASHES)]},
                "legendgroup": str(number),
                "hovertemplate": "%{y:.4~g}",
            }
        )
    layout = _layout(x, y)
    layout["yaxis"]["rangemode"] = "tozero" if from_zero else "normal"
    return {"data": data, "layout": {**layout, "showlegend": len(bands) > 1}}


def _area(band: Band, colour: str, group: str) -> dict[str, Any]:
    """A closed line around the band."""
    high = [mean + width for mean, width in zip(band.mean, band.spread, strict=True)]
    low = [mean - width for mean, width in zip(band.mean, band.spread, strict=True)]
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return {
        "type": "scatter",
        "x": [*band.x, *reversed(band.x)],
        "y": [*high, *reversed(low)],
        "mode": "lines",
        "line": {"width": 0},
        "fill": "toself",
        "fillcolor": f"rgba({red}, {green}, {blue}, 0.2)",
        "legendgroup": group,
        "showlegend": False,
        "hoverinfo": "skip",
    }


def variance_chart(reports: Sequence[VarianceReport]) -> dict[str, Any]:
    """The log-variance of estimators' gradients with respect to the encoder and to the logits, with standard errors.

    Arguments:
        reports: one for each estimator.
    """
    ordered = sorted(reports, key=lambda report: -report.encoder)
    names = [_plain(report.estimator + ("" if report.unbiased else " (biased)")) for report in ordered]
    panels = {
        "encoder": ([own.encoder for own in ordered], [own.encoder_error for own in ordered], "circle"),
        "logits": ([own.logits for own in ordered], [own.logits_error for own in ordered], "diamond"),
    }
    data = [
        {
            "type": "scatter",
            "name": name,
            "mode": "markers",
            "x": values,
            "y": names,
            "error_x": {"type": "data", "array": errors, "color": _COLOURS[number]},
            "marker": {"size": 9, "symbol": symbol, "color": _COLOURS[number]},
            "hovertemplate": "%{y}: %{x:.3f}",
        }
        for number, (name, (values, errors, symbol)) in enumerate(panels.items())
    ]
    layout = _layout("ln of the gradient's variance", "")
    layout["yaxis"] |= {"type": "category", "automargin": True}
    return {"data": data, "layout": {**layout, "hovermode": "closest", "height": 190 + 28 * len(names)}}


def _layout(x: str, y: str) -> dict[str, Any]:
    axis = {"gridcolor": _GRID, "zeroline": False, "linecolor": _GRID, "automargin": True}
    return {
        "xaxis": {**axis, "title": {"text": _plain(x)}},
        "yaxis": {**axis, "title": {"text": _plain(y)}},
        "paper_bgcolor": "rgba(0, 0, 0, 0)",
        "plot_bgcolor": "rgba(0, 0, 0, 0)",
        "font": {"family": "system-ui, sans-serif", "size": 13},
        "margin": {"l": 20, "r": 12, "t": 8, "b": 20},
        "legend": {"orientation": "h", "x": 0, "y": 0, "yref": "container", "yanchor": "bottom"},
        "hovermode": "x unified",
        "modebar": {"bgcolor": "rgba(0, 0, 0, 0)", "color": "rgba(128, 128, 128, 0.7)", "activecolor": _COLOURS[0]},
    }


def _plain(text: str) -> str:
    """Text that Plotly, which knows some tags, draws as it is."""
    return escape(text, quote=False)
