//! stub
#[derive(Default)]
pub struct Metrics {
    pub rollouts: RolloutMetrics,
}
impl Metrics {
    pub fn reconcile(&self, _c: &str, _o: &str, _d: std::time::Duration) {}
}
#[derive(Default)]
pub struct RolloutMetrics;
impl RolloutMetrics {
    pub fn observe(&self, _r: &crate::api::VoiceRollout) {}
    pub fn forget(&self, _n: &str, _m: &str) {}
}
