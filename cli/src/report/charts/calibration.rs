//! Reliability diagrams: how often who is so sure is right. Knows nothing about who that is.

use chorus_tune::Calibration;
use plotters::prelude::*;

use super::{FAINT, SMALL, SOFT, picture, styled};

const HEIGHT: u32 = 480;

/// A curve for everybody, with the expected calibration error.
pub(crate) fn calibration(curves: &[(String, RGBColor, &Calibration)]) -> anyhow::Result<String> {
    picture(HEIGHT, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(14)
            .margin_right(26)
            .x_label_area_size(48)
            .y_label_area_size(66)
            .build_cartesian_2d(0.0..1.0, 0.0..1.0)?;
        let mut mesh = chart.configure_mesh();
        mesh.x_desc("how sure it is of its likeliest token")
            .y_desc("how often that token comes")
            .x_label_formatter(&|value| format!("{:.0} %", 100.0 * value))
            .y_label_formatter(&|value| format!("{:.0} %", 100.0 * value));
        styled(&mut mesh).draw()?;
        chart.draw_series(DashedLineSeries::new([(0.0, 0.0), (1.0, 1.0)], 5, 5, SOFT.stroke_width(1)))?;
        for (name, colour, calibration) in curves {
            let bins = calibration.bins.iter().filter(|bin| bin.count > 0);
            let points: Vec<(f64, f64)> = bins.map(|bin| (bin.confidence, bin.accuracy)).collect();
            let stroke = colour.stroke_width(2);
            chart
                .draw_series(LineSeries::new(points.clone(), stroke))?
                .label(format!("{name}: off by {:.1} %", 100.0 * calibration.expected_error))
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], stroke));
            chart.draw_series(points.into_iter().map(|point| Circle::new(point, 3, colour.filled())))?;
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.85))
            .border_style(FAINT)
            .label_font(SMALL)
            .draw()?;
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use chorus_tune::Bins;

    use super::*;

    #[test]
    fn everybody_has_a_curve_and_an_error() {
        let sure = Calibration::new(&[(0.9, true), (0.9, false)], Bins::EqualWidth(10)).unwrap();
        let text = calibration(&[("alto".into(), SOFT, &sure)]).unwrap();
        assert!(text.contains("alto: off by 40.0 %"));
    }
}
