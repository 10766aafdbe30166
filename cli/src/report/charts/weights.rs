//! Weights as columns, with how far they spread over the folds. Knows nothing about how they were learned.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::{INK, LABEL, SOFT, colour, picture, styled};

const HEIGHT: u32 = 360;

/// A column for each member: its weight, and the mean and the standard deviation over the folds.
pub(crate) fn weights(members: &[String], learned: &[f64], folds: &[(f64, f64)]) -> anyhow::Result<String> {
    let tops = folds.iter().map(|(mean, deviation)| mean + deviation).chain(learned.iter().copied());
    let top = tops.fold(0.1, f64::max) * 1.15;
    let count = members.len().max(1) as f64;
    picture(HEIGHT, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(14)
            .x_label_area_size(38)
            .y_label_area_size(56)
            .build_cartesian_2d(0.0..count, 0.0..top)?;
        let mut mesh = chart.configure_mesh();
        mesh.disable_x_mesh()
            .x_labels(0)
            .x_label_formatter(&|_| String::new())
            .y_label_formatter(&|value| format!("{value:.2}"));
        styled(&mut mesh).draw()?;
        let equal = 1.0 / count;
        chart.draw_series(DashedLineSeries::new(
            [(0.0, equal), (count, equal)],
            5,
            5,
            SOFT.stroke_width(1),
        ))?;
        for (member, (name, weight)) in members.iter().zip(learned).enumerate() {
            let middle = member as f64 + 0.5;
            chart.draw_series([Rectangle::new(
                [(middle - 0.28, 0.0), (middle + 0.28, *weight)],
                colour(member).mix(0.85).filled(),
            )])?;
            if let Some((mean, deviation)) = folds.get(member) {
                let (low, high) = ((mean - deviation).max(0.0), mean + deviation);
                let stroke = INK.stroke_width(2);
                let whiskers = [
                    [(middle, low), (middle, high)],
                    [(middle - 0.06, low), (middle + 0.06, low)],
                    [(middle - 0.06, high), (middle + 0.06, high)],
                ];
                chart.draw_series(whiskers.map(|line| PathElement::new(line, stroke)))?;
                chart.draw_series([Circle::new((middle, *mean), 4, INK.filled())])?;
            }
            let (left, top) = area.get_base_pixel();
            let style = LABEL.into_text_style(area).color(&INK).pos(Pos::new(HPos::Center, VPos::Top));
            let (x, y) = chart.backend_coord(&(middle, 0.0));
            area.draw_text(&format!("{name}  {weight:.3}"), &style, (x - left, y - top + 10))?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_member_has_a_column_with_and_without_folds() {
        let members = ["alto", "bass"].map(str::to_owned);
        let text = weights(&members, &[0.7, 0.3], &[(0.68, 0.05), (0.32, 0.05)]).unwrap();
        assert!(text.contains("alto  0.700") && text.contains("bass  0.300"));
        assert!(weights(&members, &[1.0, 0.0], &[]).is_ok());
    }
}
