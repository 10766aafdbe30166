//! A run: latency by percentile, and throughput over time.

use plotters::{
    coord::Shift,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use super::{Drawn, FAINT, INK, LABEL, PictureError, TITLE, colour, short, svg};
use crate::report::{Curve, LoadReport, Report, SliceReport};

const SIZE: (u32, u32) = (1000, 860);
/// The rightmost percentile: one value in a hundred thousand is above it.
const LEAST_ABOVE: f64 = 1e-5;
/// The axis of latencies begins at the smallest of these percentiles: a few gaps of no time, where tokens came together, would
/// press everything else to the upper edge.
const LEAST_SHARE: f64 = 0.2;
/// What a logarithmic axis takes for no time at all, in milliseconds.
const LEAST_MS: f64 = 1e-4;
/// Percentiles that are written at the axis, as how many values there are to each one above.
const TICKS: [(f64, &str); 7] = [
    (1.0, "min"),
    (2.0, "p50"),
    (10.0, "p90"),
    (100.0, "p99"),
    (1e3, "p99.9"),
    (1e4, "p99.99"),
    (1e5, "p99.999"),
];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws a run under a title.
///
/// # Errors
/// The drawing library fails.
pub fn draw_run(title: &str, report: &Report) -> Result<String, PictureError> {
    svg(SIZE, |root| {
        let (head, rest) = root.split_vertically(64);
        heading(&head, title, report)?;
        let (above, below) = rest.split_vertically(430);
        percentiles(&above, &report.curves)?;
        throughput(&below, &report.timeline)
    })
}

fn heading(area: &Area<'_>, title: &str, report: &Report) -> Drawn {
    area.draw_text(title, &TITLE.into_text_style(area).color(&INK), (24, 16))?;
    let load = match report.load {
        LoadReport::Closed { concurrency } => format!("closed loop, {concurrency} at a time"),
        LoadReport::Open { rate, .. } => format!("open loop, {} calls/s", short(rate)),
    };
    let line = format!(
        "{load}; {:.0} s after {:.0} s of warm-up; {} answers/s, {} tokens/s; {} calls failed",
        report.measured_seconds,
        report.warm_up_seconds,
        short(report.per_second.answers),
        short(report.per_second.generated_tokens + report.per_second.scored_tokens),
        report.calls.failed,
    );
    area.draw_text(&line, &LABEL.into_text_style(area).color(&INK), (24, 42))?;
    Ok(())
}

/// The axis of percentiles is logarithmic in what is above them: every step to the right is ten times as rare.
fn percentiles(area: &Area<'_>, curves: &[Curve]) -> Drawn {
    let values = || curves.iter().flat_map(|curve| &curve.points).filter(|(share, _)| *share >= LEAST_SHARE);
    let values = values().map(|(_, value)| value.max(LEAST_MS));
    let (low, high) =
        values.fold((f64::INFINITY, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)));
    if !low.is_finite() {
        let style = LABEL.into_text_style(area).color(&INK);
        area.draw_text("no call was answered in the measured time", &style, (24, 24))?;
        return Ok(());
    }
    // As far to the right as the distribution with the most values says anything.
    let rarest = curves.iter().flat_map(|curve| &curve.points).map(|(share, _)| 1.0 - share);
    let rarest = rarest.filter(|above| *above > 0.0).fold(0.1, f64::min).max(LEAST_ABOVE);
    let mut chart = ChartBuilder::on(area)
        .caption("latency by percentile, in milliseconds", TITLE)
        .margin(16)
        .x_label_area_size(34)
        .y_label_area_size(64)
        .build_cartesian_2d((1.0..1.0 / rarest).log_scale(), (low / 1.3..high * 1.3).log_scale())?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(0)
        // Percentiles are written below, in place of their logarithms.
        .x_label_formatter(&|_| String::new())
        .y_label_formatter(&|value| short(*value))
        .light_line_style(WHITE)
        .bold_line_style(FAINT)
        .axis_style(INK)
        .label_style(LABEL)
        .draw()?;
    for (x, name) in TICKS.into_iter().filter(|(x, _)| *x <= 1.0 / rarest) {
        chart.draw_series(LineSeries::new([(x, low / 1.3), (x, high * 1.3)], FAINT))?;
        let (pixel, bottom) = chart.backend_coord(&(x, low / 1.3));
        let style = LABEL.into_text_style(area).color(&INK).pos(Pos::new(HPos::Center, VPos::Top));
        let (left, top) = area.get_base_pixel();
        area.draw_text(name, &style, (pixel - left, bottom - top + 8))?;
    }
    for (index, curve) in curves.iter().enumerate() {
        let colour = colour(index);
        let points = curve.points.iter().map(|(share, value)| {
            ((1.0 / (1.0 - share).max(rarest)).min(1.0 / rarest), value.max(low / 1.3))
        });
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
            .label(curve.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(3)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.85))
        .border_style(FAINT)
        .label_font(LABEL)
        .draw()?;
    Ok(())
}

/// One curve for tokens; answers and errors where there were any, on an axis of their own on the right.
fn throughput(area: &Area<'_>, slices: &[SliceReport]) -> Drawn {
    let Some(last) = slices.last() else {
        return Ok(());
    };
    let width = slices.get(1).map_or(1.0, |second| second.second);
    let end = last.second + width;
    let highest = |value: fn(&SliceReport) -> f64| slices.iter().map(value).fold(0.0, f64::max);
    let tokens = highest(|slice| slice.tokens_per_second).max(1e-3) * 1.15;
    let calls = highest(|slice| slice.answers_per_second.max(slice.errors_per_second)).max(1e-3) * 1.15;
    let mut chart = ChartBuilder::on(area)
        .caption("throughput over time", TITLE)
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .right_y_label_area_size(64)
        .build_cartesian_2d(0.0..end, 0.0..tokens)?
        .set_secondary_coord(0.0..end, 0.0..calls);
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_desc("seconds after the warm-up")
        .y_desc("tokens/s")
        .y_label_formatter(&|value| short(*value))
        .x_label_formatter(&|value| short(*value))
        .light_line_style(WHITE)
        .bold_line_style(FAINT)
        .axis_style(INK)
        .label_style(LABEL)
        .draw()?;
    chart
        .configure_secondary_axes()
        .y_desc("calls/s")
        .y_label_formatter(&|value| short(*value))
        .axis_style(INK)
        .label_style(LABEL)
        .draw()?;
    let middle = |slice: &SliceReport| slice.second + width / 2.0;
    let line = |value: fn(&SliceReport) -> f64| slices.iter().map(move |slice| (middle(slice), value(slice)));
    let (first, second, third) = (colour(0), colour(2), colour(1));
    chart
        .draw_series(LineSeries::new(line(|slice| slice.tokens_per_second), first.stroke_width(2)))?
        .label("tokens")
        .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], first.stroke_width(3)));
    chart
        .draw_secondary_series(LineSeries::new(
            line(|slice| slice.answers_per_second),
            second.stroke_width(2),
        ))?
        .label("answers")
        .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], second.stroke_width(3)));
    if highest(|slice| slice.errors_per_second) > 0.0 {
        chart
            .draw_secondary_series(LineSeries::new(
                line(|slice| slice.errors_per_second),
                third.stroke_width(2),
            ))?
            .label("errors")
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], third.stroke_width(3)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.85))
        .border_style(FAINT)
        .label_font(LABEL)
        .draw()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        report::tests::{plan, result},
        run::Load,
    };

    #[test]
    fn the_picture_has_every_curve_and_what_was_done() {
        let plan = plan(Load::Closed { concurrency: 3 });
        let picture = draw_run("a title", &Report::new(&plan, &result(&plan))).unwrap();
        assert!(picture.trim_end().ends_with("</svg>"));
        for words in [
            "a title",
            "closed loop, 3 at a time",
            "first token",
            "between tokens",
            "whole generation",
            "whole scoring",
            "p90",
            "throughput over time",
            "tokens/s",
            "errors",
        ] {
            assert!(picture.contains(words), "{words}");
        }
    }

    #[test]
    fn a_run_without_answers_has_a_picture_too() {
        let plan = plan(Load::Closed { concurrency: 3 });
        let mut nothing = result(&plan);
        nothing.measurements = crate::measure::Measurements::new(plan.window);
        nothing.measured = std::time::Duration::ZERO;
        let picture = draw_run("t", &Report::new(&plan, &nothing)).unwrap();
        assert!(picture.contains("no call was answered"));
    }
}
