//! Metrics whose values live elsewhere and are read when somebody asks.

use prometheus::{
    Opts,
    core::{Collector, Desc, Describer},
    proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType},
};

/// One metric, read by a closure: label value (ignored when there is no label) and number.
pub(super) struct Source<F> {
    desc: Desc,
    kind: MetricType,
    read: F,
}

/// A label value and its number.
pub(super) type Sample = (String, f64);

impl<F: Fn() -> Vec<Sample> + Send + Sync> Source<F> {
    pub(super) fn new(
        kind: MetricType,
        name: &str,
        help: &str,
        label: Option<&str>,
        read: F,
    ) -> prometheus::Result<Self> {
        let desc = Opts::new(name, help)
            .variable_labels(label.map(str::to_owned).into_iter().collect())
            .describe()?;
        Ok(Self { desc, kind, read })
    }
}

impl<F: Fn() -> Vec<Sample> + Send + Sync> Collector for Source<F> {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let metrics = (self.read)().into_iter().map(|(value, number)| {
            let labels = self.desc.variable_labels.first().map(|name| {
                let mut pair = LabelPair::default();
                pair.set_name(name.clone());
                pair.set_value(value);
                pair
            });
            let mut metric = Metric::from_label(labels.into_iter().collect());
            if self.kind == MetricType::COUNTER {
                let mut counter = Counter::default();
                counter.set_value(number);
                metric.set_counter(counter);
            } else {
                let mut gauge = Gauge::default();
                gauge.set_value(number);
                metric.set_gauge(gauge);
            }
            metric
        });
        let mut family = MetricFamily::default();
        family.set_name(self.desc.fq_name.clone());
        family.set_help(self.desc.help.clone());
        family.set_field_type(self.kind);
        family.set_metric(metrics.collect());
        vec![family]
    }
}
