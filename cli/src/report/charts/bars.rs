//! Horizontal bars with their values written beside them. Knows nothing about what they measure.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::{FAINT, INK, LABEL, SMALL, SOFT, WIDTH, picture};

/// A bar.
pub(crate) struct Bar {
    pub(crate) label: String,
    pub(crate) value: f64,
    /// Written beside it.
    pub(crate) shown: String,
    pub(crate) colour: RGBColor,
}

const ROW: i32 = 34;
const LEFT: i32 = 210;
const RIGHT: i32 = 130;

/// Bars from above `floor` on (0, or less than the smallest where they differ by little: then the axis says so); `unit` is
/// written below them. Values that are not finite have no bar.
pub(crate) fn bars(bars: &[Bar], floor: f64, unit: &str) -> anyhow::Result<String> {
    let height = ROW * i32::try_from(bars.len()).unwrap_or(i32::MAX / ROW) + 52;
    let finite = bars.iter().map(|bar| bar.value).filter(|value| value.is_finite());
    let (low, high) = finite.fold((floor, floor), |(low, high), value| (low.min(value), high.max(value)));
    let span = if high > low { high - low } else { 1.0 };
    let right = i32::try_from(WIDTH).unwrap_or(i32::MAX) - RIGHT;
    let x = |value: f64| LEFT + ((value - low) / span * f64::from(right - LEFT)).round() as i32;
    picture(height.unsigned_abs(), |area| {
        let label = LABEL.into_text_style(area).color(&INK).pos(Pos::new(HPos::Right, VPos::Center));
        let value = LABEL.into_text_style(area).color(&INK).pos(Pos::new(HPos::Left, VPos::Center));
        let zero = x(floor.max(low).min(high));
        for (row, bar) in (0..).zip(bars) {
            let middle = 16 + ROW * row + ROW / 2;
            area.draw_text(&bar.label, &label, (LEFT - 12, middle))?;
            if !bar.value.is_finite() {
                area.draw_text(&bar.shown, &value, (LEFT + 8, middle))?;
                continue;
            }
            let end = x(bar.value);
            let corners = [(zero.min(end), middle - 11), (zero.max(end), middle + 11)];
            area.draw(&Rectangle::new(corners, bar.colour.filled()))?;
            area.draw_text(&bar.shown, &value, (zero.max(end) + 8, middle))?;
        }
        area.draw(&PathElement::new([(zero, 12), (zero, height - 34)], FAINT.stroke_width(2)))?;
        let below = SMALL.into_text_style(area).color(&SOFT).pos(Pos::new(HPos::Left, VPos::Center));
        area.draw_text(unit, &below, (LEFT, height - 16))?;
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bar_has_its_label_and_value_whatever_the_value_is() {
        let bar = |label: &str, value: f64| Bar {
            label: label.into(),
            value,
            shown: format!("{value:.2}"),
            colour: INK,
        };
        let text =
            bars(&[bar("alto", 2.0), bar("bass", f64::INFINITY), bar("cello", -1.0)], 0.0, "nats").unwrap();
        for part in ["alto", "2.00", "bass", "inf", "cello", "-1.00", "nats", "<svg", "</svg>"] {
            assert!(text.contains(part), "{part}");
        }
        assert!(bars(&[], 0.0, "").is_ok());
        assert!(bars(&[bar("alone", 5.0)], 5.0, "").is_ok());
    }
}
