// SPDX-License-Identifier: GPL-2.0
//! One line that shows how much of the address space was on the device, over time.

const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Percent on the device for each of at most `columns` equal parts of time; a part without a sample
/// repeats the one before it. `slots` are (pages on the device, pages) of equal slots of time.
pub fn percentages(slots: &[(u64, u64)], columns: usize) -> Vec<u8> {
    let used = slots
        .iter()
        .rposition(|slot| slot.1 != 0)
        .map_or(0, |last| last + 1);
    let columns = columns.min(used);
    let mut last = 0;
    (0..columns)
        .map(|column| {
            let part = &slots[column * used / columns..(column + 1) * used / columns];
            let resident: u64 = part.iter().map(|slot| slot.0).sum();
            let present: u64 = part.iter().map(|slot| slot.1).sum();
            if let Some(percent) = (resident * 100).checked_div(present) {
                last = u8::try_from(percent.min(100)).unwrap_or(100);
            }
            last
        })
        .collect()
}

/// Eighths, as block characters.
pub fn line(percentages: &[u8]) -> String {
    percentages
        .iter()
        .map(|&percent| BLOCKS[(usize::from(percent) * BLOCKS.len() / 101).min(BLOCKS.len() - 1)])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_seen_nothing_drawn() {
        assert!(percentages(&[], 10).is_empty());
        assert!(percentages(&[(0, 0); 5], 10).is_empty());
        assert_eq!(line(&[]), "");
    }

    #[test]
    fn a_gap_repeats_what_was_before() {
        assert_eq!(
            percentages(&[(1, 2), (0, 0), (2, 2), (0, 0)], 10),
            [50, 50, 100]
        );
    }

    #[test]
    fn more_slots_than_columns_are_averaged() {
        let slots = [(0, 10), (10, 10), (10, 10), (10, 10)];
        assert_eq!(percentages(&slots, 2), [50, 100]);
        assert_eq!(percentages(&slots, 4), [0, 100, 100, 100]);
    }

    #[test]
    fn the_scale_has_eight_steps() {
        assert_eq!(line(&[0, 12, 13, 50, 88, 99, 100]), "▁▁▂▄▇██");
    }
}
