"""What a HorizontalPodAutoscaler makes of the lag, with the chart's behaviour. Pure: told the time and the lag.

Names are those of `worker.autoscaling` in the chart; its defaults are divided by ten, for a minute here stands for ten there.
"""

from dataclasses import dataclass, field
from math import ceil

TOLERANCE = 0.1  # of the ratio of lag to what is allowed; Kubernetes' default
SCALE_UP_PODS, SCALE_UP_FACTOR = 4, 2  # most in one syncSeconds, whichever is more; Kubernetes' default


@dataclass(frozen=True)
class Settings:
    minReplicas: int
    maxReplicas: int
    lagThreshold: int
    stabilizationSeconds: float
    periodSeconds: float
    syncSeconds: float


@dataclass
class Autoscaler:
    settings: Settings
    replicas: int = 1
    _wanted: list[tuple[float, int]] = field(default_factory=list)
    _changes: list[tuple[float, int]] = field(default_factory=list)

    def look(self, now: float, lag: float) -> int:
        """How many replicas there shall be from now on."""
        self._wanted.append((now, self._desired(lag)))
        self._wanted = [(at, count) for at, count in self._wanted if now - at < self.settings.stabilizationSeconds]
        wanted = self._wanted[-1][1]
        if wanted <= self.replicas:
            wanted = min(self.replicas, max(count for _, count in self._wanted))
        wanted = max(self._least(now), min(self._most(now), wanted))
        if wanted != self.replicas:
            self._changes.append((now, wanted - self.replicas))
        self.replicas = wanted
        return wanted

    def _desired(self, lag: float) -> int:
        s = self.settings
        lag = min(lag, s.maxReplicas * s.lagThreshold)
        if abs(1 - lag / (s.lagThreshold * self.replicas)) <= TOLERANCE:
            return self.replicas
        return max(s.minReplicas, min(s.maxReplicas, ceil(lag / s.lagThreshold)))

    def _changed(self, now: float, seconds: float, sign: int) -> int:
        return sum(change for at, change in self._changes if now - at < seconds and change * sign > 0)

    def _least(self, now: float) -> int:
        """One pod fewer than when the period began."""
        return min(self.replicas, self.replicas - self._changed(now, self.settings.periodSeconds, -1) - 1)

    def _most(self, now: float) -> int:
        before = self.replicas - self._changed(now, self.settings.syncSeconds, 1)
        return max(before + SCALE_UP_PODS, before * SCALE_UP_FACTOR)
