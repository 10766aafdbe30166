//! Curves over one axis. Knows nothing about what they are of.

use plotters::element::DashedPathElement;
use plotters::prelude::*;

use super::{FAINT, SMALL, SOFT, picture, range, styled};

/// A curve.
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
    pub(crate) colour: RGBColor,
    /// For what the others are held against.
    pub(crate) dashed: bool,
}

const HEIGHT: u32 = 400;

/// Curves of shares, with what the axes are and a point to look at.
pub(crate) fn lines(
    lines: &[Line],
    axes: (&str, &str),
    marked: Option<(f64, f64)>,
) -> anyhow::Result<String> {
    let xs = lines.iter().flat_map(|line| line.points.iter().map(|(x, _)| *x));
    let (left, right) = range(xs, 0.0);
    let (low, high) = range(lines.iter().flat_map(|line| line.points.iter().map(|(_, y)| *y)), 1e-3);
    // Names stand above the curves.
    let high = high + 0.1 * lines.len() as f64 * (high - low);
    picture(HEIGHT, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(14)
            .x_label_area_size(48)
            .y_label_area_size(66)
            .build_cartesian_2d(left.max(0.0)..right, low.max(0.0)..high)?;
        let mut mesh = chart.configure_mesh();
        mesh.x_desc(axes.0)
            .y_desc(axes.1)
            .x_label_formatter(&|value| format!("{value:.2}"))
            .y_label_formatter(&|value| format!("{:.1} %", 100.0 * value));
        styled(&mut mesh).draw()?;
        for line in lines {
            let stroke = line.colour.stroke_width(if line.dashed { 2 } else { 3 });
            let points = line.points.iter().copied();
            let sample = |(x, y): (i32, i32)| [(x, y), (x + 20, y)];
            if line.dashed {
                chart
                    .draw_series(DashedLineSeries::new(points, 6, 5, stroke))?
                    .label(&line.name)
                    .legend(move |at| DashedPathElement::new(sample(at), 6, 5, stroke));
            } else {
                chart
                    .draw_series(LineSeries::new(points, stroke))?
                    .label(&line.name)
                    .legend(move |at| PathElement::new(sample(at), stroke));
            }
        }
        if let Some(point) = marked {
            chart.draw_series([Circle::new(
                point,
                6,
                lines.first().map_or(SOFT, |line| line.colour).filled(),
            )])?;
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE.mix(0.85))
            .border_style(FAINT)
            .label_font(SMALL)
            .draw()?;
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_have_names_and_axes() {
        let line = |name: &str, dashed| Line {
            name: name.into(),
            points: vec![(0.0, 0.1), (1.0, 0.3)],
            colour: SOFT,
            dashed,
        };
        let text =
            lines(&[line("vote", false), line("alto", true)], ("threshold", "accuracy"), Some((0.0, 0.1)));
        let text = text.unwrap();
        for part in ["vote", "alto", "threshold", "accuracy", "%"] {
            assert!(text.contains(part), "{part}");
        }
        assert!(lines(&[], ("x", "y"), None).is_ok());
    }
}
