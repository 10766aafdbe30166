//! Pictures of a run and of the growth of costs, as SVG. Knows nothing about how the figures came to be.

mod growth;
mod run;

use plotters::prelude::*;

pub use growth::draw_growth;
pub use run::draw_run;

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
#[error("the picture can't be drawn: {0}")]
pub struct PictureError(String);

/// What the drawing library says.
type Drawn = Result<(), Box<dyn std::error::Error>>;

/// Colours that stay apart for those who see no red or no green: Okabe and Ito.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
];
const INK: RGBColor = RGBColor(40, 44, 52);
const FAINT: RGBColor = RGBColor(222, 226, 232);
const TITLE: (&str, i32) = ("sans-serif", 20);
const LABEL: (&str, i32) = ("sans-serif", 13);

fn colour(index: usize) -> RGBColor {
    COLOURS[index % COLOURS.len()]
}

/// A picture of a size, drawn into a text.
fn svg(
    size: (u32, u32),
    draw: impl FnOnce(&DrawingArea<SVGBackend<'_>, plotters::coord::Shift>) -> Drawn,
) -> Result<String, PictureError> {
    let mut picture = String::new();
    let root = SVGBackend::with_string(&mut picture, size).into_drawing_area();
    let drawn = root.fill(&WHITE).map_err(Into::into).and_then(|()| draw(&root));
    let drawn = drawn.and_then(|()| root.present().map_err(Into::into));
    drop(root);
    drawn.map_err(|error| PictureError(error.to_string()))?;
    Ok(picture)
}

/// A number of milliseconds, tokens or microseconds, as short as it can be said.
fn short(number: f64) -> String {
    match number.abs() {
        0.0 => "0".to_owned(),
        size if size >= 1e6 => format!("{}M", digits(number / 1e6)),
        size if size >= 1e3 => format!("{}k", digits(number / 1e3)),
        _ => digits(number),
    }
}

/// Three digits, without zeros at the end.
fn digits(number: f64) -> String {
    let decimals = (2 - number.abs().log10().floor() as i32).clamp(0, 6) as usize;
    let text = format!("{number:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (number, said) in [
            (0.0, "0"),
            (0.05, "0.05"),
            (1.0, "1"),
            (12.34, "12.3"),
            (1000.0, "1k"),
            (25_400.0, "25.4k"),
            (3e6, "3M"),
        ] {
            assert_eq!(short(number), said);
        }
    }
}
