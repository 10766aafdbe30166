//! Costs by members, one line for each vocabulary, and costs by sessions.

use plotters::prelude::*;

use super::{Drawn, FAINT, INK, LABEL, PictureError, TITLE, colour, short, svg};
use crate::growth::{Line, Point};

const SIZE: (u32, u32) = (1000, 860);

/// Draws what was measured over members, as points, with the straight lines through them, and over sessions. Either may
/// be empty.
///
/// # Errors
/// The drawing library fails.
pub fn draw_growth(
    title: &str,
    by_members: &[Point],
    lines: &[Line],
    by_sessions: &[Point],
) -> Result<String, PictureError> {
    svg(SIZE, |root| {
        let (head, rest) = root.split_vertically(48);
        head.draw_text(title, &TITLE.into_text_style(&head).color(&INK), (24, 16))?;
        let (above, below) =
            rest.split_vertically(if by_sessions.is_empty() { SIZE.1 as i32 - 48 } else { 470 });
        if !by_members.is_empty() {
            members(&above, by_members, lines)?;
        }
        if by_sessions.is_empty() { Ok(()) } else { sessions(&below, by_sessions) }
    })
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn bounds(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, 1e-9), |(low, high): (f64, f64), value| (low.min(value), high.max(value)))
}

/// Both axes are logarithmic: a cost that is a base and a straight line of members is flat at first and then has the slope
/// of 1; a hidden square would have the slope of 2.
fn members(area: &Area<'_>, points: &[Point], lines: &[Line]) -> Drawn {
    let (low, high) = bounds(points.iter().map(|point| point.cpu_us_per_token));
    let (fewest, most) = bounds(points.iter().map(|point| point.members as f64));
    let mut chart = ChartBuilder::on(area)
        .caption("coordinator: processor time for each token, by members", TITLE)
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(72)
        .build_cartesian_2d((fewest / 1.15..most * 1.15).log_scale(), (low / 1.5..high * 1.5).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("members")
        .y_desc("microseconds a token")
        .x_label_formatter(&|value| short(*value))
        .y_label_formatter(&|value| short(*value))
        .light_line_style(WHITE)
        .bold_line_style(FAINT)
        .axis_style(INK)
        .label_style(LABEL)
        .draw()?;
    for (index, line) in lines.iter().enumerate() {
        let colour = colour(index);
        let steps = (0..=60).map(|step| fewest * (most / fewest).powf(f64::from(step) / 60.0));
        let fitted = steps.map(|members| (members, line.base + line.per_member * members));
        chart
            .draw_series(LineSeries::new(fitted, colour.stroke_width(2)))?
            .label(format!(
                "V = {}: {} + {} a member",
                line.vocabulary,
                short(line.base),
                short(line.per_member)
            ))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(3)));
        let own = points.iter().filter(|point| point.vocabulary == line.vocabulary);
        chart.draw_series(
            own.map(|point| Circle::new((point.members as f64, point.cpu_us_per_token), 4, colour.filled())),
        )?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.85))
        .border_style(FAINT)
        .label_font(LABEL)
        .draw()?;
    Ok(())
}

fn sessions(area: &Area<'_>, points: &[Point]) -> Drawn {
    let (_, high) = bounds(points.iter().map(Point::cpu_us_per_token_and_member));
    let (fewest, most) = bounds(points.iter().map(|point| point.sessions as f64));
    let of = points
        .first()
        .map_or_else(String::new, |point| format!(" ({} members, V = {})", point.members, point.vocabulary));
    let mut chart = ChartBuilder::on(area)
        .caption(format!("processor time for each token and member, by sessions{of}"), TITLE)
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(72)
        .build_cartesian_2d((fewest / 1.15..most * 1.15).log_scale(), 0.0..high * 1.25)?;
    chart
        .configure_mesh()
        .x_desc("sessions at a time")
        .y_desc("microseconds")
        .x_label_formatter(&|value| short(*value))
        .y_label_formatter(&|value| short(*value))
        .light_line_style(WHITE)
        .bold_line_style(FAINT)
        .axis_style(INK)
        .label_style(LABEL)
        .draw()?;
    let colour = colour(0);
    let place = |point: &Point| (point.sessions as f64, point.cpu_us_per_token_and_member());
    chart.draw_series(LineSeries::new(points.iter().map(place), colour.stroke_width(2)))?;
    chart.draw_series(points.iter().map(|point| Circle::new(place(point), 4, colour.filled())))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_has_a_line_for_each_vocabulary_and_every_point() {
        let point = |members: usize, vocabulary: u32, sessions| Point {
            members,
            vocabulary,
            sessions,
            tokens_per_second: 10.0,
            cpu_us_per_token: 10.0 + members as f64 * f64::from(vocabulary),
        };
        let by_members: Vec<Point> =
            [1, 3, 8].into_iter().flat_map(|n| [256, 10_000].map(|v| point(n, v, 16))).collect();
        let by_sessions: Vec<Point> = [1, 16, 1024].map(|sessions| point(3, 256, sessions)).into();
        let lines = Line::of_each_vocabulary(&by_members);
        let picture = draw_growth("growth", &by_members, &lines, &by_sessions).unwrap();
        assert!(picture.contains("V = 256: 10 + 256 a member") && picture.contains("V = 10000"));
        assert_eq!(picture.matches("<circle").count(), 9);
        assert!(draw_growth("growth", &[], &[], &by_sessions).is_ok());
        assert!(draw_growth("growth", &by_members, &lines, &[]).unwrap().matches("<circle").count() == 6);
    }
}
