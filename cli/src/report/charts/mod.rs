//! The pictures of a report, each a text of SVG. Knows nothing about where the figures come from or about the page around them.

mod bars;
mod calibration;
mod lines;
mod sets;
mod weights;

use anyhow::anyhow;
use plotters::chart::MeshStyle;
use plotters::coord::Shift;
use plotters::coord::ranged1d::Ranged;
use plotters::prelude::*;

pub(super) use bars::{Bar, bars};
pub(super) use calibration::calibration;
pub(super) use lines::{Line, lines};
pub(super) use sets::sets;
pub(super) use weights::weights;

const INK: RGBColor = RGBColor(38, 42, 51);
const SOFT: RGBColor = RGBColor(112, 120, 134);
const FAINT: RGBColor = RGBColor(226, 229, 235);
const WIDTH: u32 = 760;
const LABEL: (&str, i32) = ("sans-serif", 15);
const SMALL: (&str, i32) = ("sans-serif", 13);

/// Colours that people with every kind of colour vision tell apart (Okabe and Ito 2008), for members in their order.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(213, 94, 0),
    RGBColor(170, 160, 40),
];
/// The colour of the ensemble as a whole.
pub(super) const ENSEMBLE: RGBColor = INK;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

/// A member's colour, the same in every picture.
pub(super) fn colour(member: usize) -> RGBColor {
    COLOURS.get(member % COLOURS.len()).copied().unwrap_or(INK)
}

/// A picture of this height, drawn into a text.
fn picture(height: u32, draw: impl FnOnce(&Area<'_>) -> Drawn) -> anyhow::Result<String> {
    let mut text = String::new();
    let root = SVGBackend::with_string(&mut text, (WIDTH, height)).into_drawing_area();
    let drawn = root.fill(&WHITE).map_err(Into::into).and_then(|()| draw(&root));
    let drawn = drawn.and_then(|()| root.present().map_err(Into::into));
    drop(root);
    drawn.map_err(|error| anyhow!("a picture can't be drawn: {error}"))?;
    Ok(text)
}

/// Axes as every picture has them.
fn styled<'m, 'a, 'b, X: Ranged, Y: Ranged, D: DrawingBackend>(
    mesh: &'m mut MeshStyle<'a, 'b, X, Y, D>,
) -> &'m mut MeshStyle<'a, 'b, X, Y, D> {
    mesh.light_line_style(WHITE)
        .bold_line_style(FAINT)
        .axis_style(SOFT)
        .label_style(SMALL)
        .axis_desc_style(LABEL)
}

/// A little more than the values on both sides.
fn range(values: impl IntoIterator<Item = f64>, least: f64) -> (f64, f64) {
    let (low, high) = values
        .into_iter()
        .filter(|value| value.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
    if low > high {
        return (0.0, 1.0);
    }
    let margin = ((high - low) * 0.12).max(least);
    (low - margin, high + margin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_room_around_its_values_and_is_never_empty() {
        assert_eq!(range([], 0.1), (0.0, 1.0));
        assert_eq!(range([2.0], 0.5), (1.5, 2.5));
        let (low, high) = range([1.0, 3.0, f64::INFINITY], 0.0);
        assert!((low - 0.76).abs() < 1e-12 && (high - 3.24).abs() < 1e-12);
    }
}
