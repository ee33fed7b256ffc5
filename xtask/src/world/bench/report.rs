//! Numbers to a table and to JSON.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::Result;
use serde_json::{Value, json};

/// Values of one contender, round by round.
#[derive(Debug, Default, Clone)]
pub(super) struct Series {
    pub(super) values: Vec<f64>,
    /// CPU seconds of the proxy, and operations that they were for.
    pub(super) cpu: f64,
    pub(super) operations: f64,
}

/// One measurement: contenders in the order in which they ran, `direct` first.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) section: String,
    pub(super) case: String,
    pub(super) contenders: Vec<(String, Series)>,
}

#[derive(Debug, Clone, Copy)]
struct Spread {
    low: f64,
    median: f64,
    high: f64,
}

/// p10, median and p90.
fn spread(mut values: Vec<f64>) -> Option<Spread> {
    values.sort_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    let at = |tenths: usize| values.get((last * tenths + 5) / 10).copied();
    Some(Spread { low: at(1)?, median: at(5)?, high: at(9)? })
}

impl Measured {
    fn ratio(&self, series: &Series) -> Option<Spread> {
        let (_, direct) = self.contenders.first()?;
        spread(series.values.iter().zip(&direct.values).map(|(value, base)| value / base).collect())
    }

    /// Prints one line per contender.
    pub(super) fn print(&self) {
        for (index, (name, series)) in self.contenders.iter().enumerate() {
            let label = if index == 0 { self.case.as_str() } else { "" };
            let ratio = match self.ratio(series) {
                Some(_) if index == 0 => "1".to_owned(),
                Some(Spread { low, median, high }) => format!("{median:.2}  ({low:.2}-{high:.2})"),
                None => "-".to_owned(),
            };
            let cpu = match series.operations > 0.0 && series.cpu > 0.0 {
                true => format!("{:.1}", series.cpu * 1e6 / series.operations),
                false => "-".to_owned(),
            };
            println!("  {label:<24} {name:<10} {ratio:<20} {cpu:>10}");
        }
    }

    fn json(&self) -> Value {
        let contenders: BTreeMap<&str, Value> = self
            .contenders
            .iter()
            .map(|(name, series)| {
                let ratio = self
                    .ratio(series)
                    .map(|Spread { low, median, high }| json!({ "p10": low, "median": median, "p90": high }));
                let cpu = (series.operations > 0.0).then(|| series.cpu * 1e6 / series.operations);
                let value =
                    json!({ "ratio_to_direct": ratio, "cpu_us_per_operation": cpu, "rounds": series.values });
                (name.as_str(), value)
            })
            .collect();
        json!({ "section": self.section, "case": self.case, "contenders": contenders })
    }
}

pub(super) fn heading(section: &str) {
    println!("\n{section}");
    println!("  {:<24} {:<10} {:<20} {:>10}", "", "", "ratio to direct", "CPU µs/op");
}

pub(super) fn write(file: &Path, measured: &[Measured], facts: &[(String, Value)]) -> Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    let facts: BTreeMap<_, _> = facts.iter().cloned().collect();
    let all = json!({
        "unit": "ratios are medians of pairwise ratios of operations per second to those of a direct connection in the same round",
        "facts": facts,
        "measured": measured.iter().map(Measured::json).collect::<Vec<_>>(),
    });
    fs::write(file, serde_json::to_string_pretty(&all)? + "\n")?;
    println!("\n{}", file.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_taken_round_by_round() {
        let series = |values: &[f64]| Series { values: values.to_vec(), ..Series::default() };
        let measured = Measured {
            section: "s".into(),
            case: "c".into(),
            contenders: vec![
                ("direct".into(), series(&[100.0, 50.0, 200.0])),
                ("other".into(), series(&[50.0, 30.0, 100.0])),
            ],
        };
        let ratio = measured.ratio(&measured.contenders[1].1).expect("three rounds");
        assert!((ratio.median - 0.5).abs() < 1e-9);
        assert!((ratio.high - 0.6).abs() < 1e-9);
        assert!(spread(Vec::new()).is_none());
    }
}
