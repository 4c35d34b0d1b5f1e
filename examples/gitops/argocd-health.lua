-- Health of a VoiceRollout for Argo CD. argocd-cm.yaml has the same text.
hs = {}
local status = obj.status
if status == nil or status.phase == nil or (status.observedGeneration or 0) < (obj.metadata.generation or 0) then
  hs.status = "Progressing"
  hs.message = "the operator has not looked at it yet"
  return hs
end
local health = {
  Healthy = "Healthy",
  Paused = "Suspended",
  Degraded = "Degraded",
  Invalid = "Degraded",
}
hs.status = health[status.phase] or "Progressing"
hs.message = status.message or ""
if status.phase == "Paused" and status.waitingFor ~= nil and status.waitingFor ~= "" then
  hs.message = status.waitingFor
end
return hs
