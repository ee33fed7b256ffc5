//! Days and dates of the proleptic Gregorian calendar, as PostgreSQL counts them: from 2000-01-01.

/// A whole stretch of time that dates are shown by.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    Hour,
    Day,
    Week,
    Month,
    Quarter,
    Year,
}

/// Days from 1970-01-01 to 2000-01-01.
const EPOCH: i64 = 10_957;

/// `YYYY-MM-DD` at the start of a text, and the rest.
pub(crate) fn parse(text: &str) -> Option<(i64, &str)> {
    let (date, rest) = text.split_at_checked(10)?;
    let mut parts = date.split('-');
    let mut part = |length: usize| -> Option<i64> {
        let part = parts.next()?;
        (part.len() == length && part.bytes().all(|b| b.is_ascii_digit())).then(|| part.parse().ok())?
    };
    let (year, month, day) = (part(4)?, part(2)?, part(2)?);
    let days = from_civil(year, month, day);
    // No 30th of February, and no digit right after.
    let exact = to_civil(days) == (year, month, day)
        && !rest.starts_with(|c: char| c.is_ascii_alphanumeric() && c != 'T');
    exact.then_some((days, rest))
}

/// `YYYY-MM-DD`; `None` outside the years 1 to 9999.
pub(crate) fn write(days: i64) -> Option<String> {
    let (year, month, day) = to_civil(days);
    (1..=9999).contains(&year).then(|| format!("{year:04}-{month:02}-{day:02}"))
}

/// The first day of the stretch that a day is in.
pub(crate) fn floor(days: i64, unit: Unit) -> i64 {
    let (year, month, _) = to_civil(days);
    match unit {
        Unit::Hour | Unit::Day => days,
        // 2000-01-03 was a Monday.
        Unit::Week => days - (days - 2).rem_euclid(7),
        Unit::Month => from_civil(year, month, 1),
        Unit::Quarter => from_civil(year, (month - 1) / 3 * 3 + 1, 1),
        Unit::Year => from_civil(year, 1, 1),
    }
}

/// `YYYY-MM-DD` of a day that is counted from 1970-01-01; `None`: its year has not four digits.
pub fn date(days: i64) -> Option<String> {
    write(days.checked_sub(EPOCH)?)
}

// Both by eras of 400 years that begin in March, so that the day that comes and goes is the last of its year.

fn from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468 - EPOCH
}

fn to_civil(days: i64) -> (i64, i64, i64) {
    let days = days + EPOCH + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_days() {
        for (text, days) in
            [("2000-01-01", 0), ("1999-12-31", -1), ("1970-01-01", -10_957), ("2024-02-29", 8825)]
        {
            assert_eq!(parse(text), Some((days, "")), "{text}");
            assert_eq!(write(days).as_deref(), Some(text));
        }
        for wrong in ["2023-02-29", "2024-13-01", "2024-1-1", "24-01-01", "2024-01-011", "x", "+024-01-01"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
        let floors = |unit| write(floor(8825, unit)).unwrap();
        assert_eq!(floors(Unit::Year), "2024-01-01");
        assert_eq!(floors(Unit::Quarter), "2024-01-01");
        assert_eq!(floors(Unit::Month), "2024-02-01");
        assert_eq!(floors(Unit::Week), "2024-02-26");
    }

    proptest! {
        #[test]
        fn days_and_dates_agree(days in -730_000i64..2_900_000) {
            let text = write(days).unwrap();
            prop_assert_eq!(parse(&text), Some((days, "")));
            for unit in [Unit::Week, Unit::Month, Unit::Quarter, Unit::Year] {
                let first = floor(days, unit);
                prop_assert!(first <= days && floor(first, unit) == first);
            }
        }
    }
}
