//! Metrics that a judge is shown, with those that stand for a histogram written out.

use crate::api::analysis::{EvidenceMetric, PrometheusProvider};
use crate::api::evidence::{Evidence, EvidencePerCall};

/// Every metric to ask for, in order.
pub fn metrics(evidence: &Evidence) -> Vec<EvidenceMetric> {
    evidence.metrics.iter().cloned().chain(evidence.per_call.iter().map(per_call)).collect()
}

/// Mean of a histogram with one observation a call, and the number of calls.
fn per_call(wanted: &EvidencePerCall) -> EvidenceMetric {
    let EvidencePerCall { name, unit, histogram, revision_label, window, address } = wanted;
    // PromQL writes durations without fractions.
    let window = format!("{}ms", crate::api::common::std_duration(*window).as_millis());
    let of = |series: &str, function: &str| {
        format!("sum({function}({histogram}_{series}{{{revision_label}=\"{{{{args.revision}}}}\"}}[{window}]))")
    };
    let provider = serde_json::json!({"address": address, "query": format!("{} / {}", of("sum", "rate"), of("count", "rate"))});
    let prometheus =
        serde_json::from_value::<PrometheusProvider>(provider).unwrap_or_else(|_| unreachable!("address and query are enough"));
    EvidenceMetric { name: name.clone(), unit: unit.clone(), prometheus, count_query: Some(of("count", "increase")) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_histogram_of_calls_is_written_out() {
        let entry = json!({"name": "tool calls in a call", "histogram": "voice_tool_calls_per_call", "address": "http://p:9090"});
        let evidence: Evidence = serde_json::from_value(json!({"perCall": [entry]})).unwrap();
        let metric = &metrics(&evidence)[0];
        assert_eq!(
            metric.prometheus.query,
            "sum(rate(voice_tool_calls_per_call_sum{revision=\"{{args.revision}}\"}[300000ms])) / \
             sum(rate(voice_tool_calls_per_call_count{revision=\"{{args.revision}}\"}[300000ms]))"
        );
        let count = metric.count_query.as_deref().unwrap();
        assert_eq!(count, "sum(increase(voice_tool_calls_per_call_count{revision=\"{{args.revision}}\"}[300000ms]))");
        let filled = count.replace("{{args.revision}}", "x");
        assert_eq!(crate::core::window::longest(&filled, "").unwrap(), std::time::Duration::from_secs(300));
    }
}
