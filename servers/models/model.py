"""A model: what callers name. It has settings, limits, a history of requests, and the instances that serve it."""

from collections import Counter
from collections.abc import Collection, Sequence

from configs.settings import ModelSettings
from servers.engines.base import Adaptable, Card, Engine
from servers.models import affinity
from servers.models.admission import Admission
from servers.models.comparison import Recording
from servers.models.instance import Instance, State
from servers.models.quarantine import Quarantine
from servers.models.recent import Recent
from servers.models.residence import Residence
from servers.models.trial import SwapResult, Trial

# The order in which instances are chosen.
_PREFERENCE = (
    State.READY,
    State.DRAINING,
    State.STARTING,
    State.PULLING,
    State.ASLEEP,
    State.UNLOADED,
    State.STOPPED,
    State.FAILED,
)


class Model:
    """One served model. `engine` is bound to its settings; `instances` holds at least one.

    `state` is that of the instance that `choose` returns; counts are sums over all instances. A model that
    `is_leaving` answers the requests that it has and takes no new ones. `target_replicas` is how many Ray wants to run,
    None where Ray has not said it.

    An object is one `version` of the model, `v1` at the start of the platform. While a new one is on `trial`, a share
    of the requests goes there. `swaps` counts how swaps of the model ended, and `recording` has its last requests where
    the settings ask for them; both pass from version to version. `previous` is the version before, as the way back.
    """

    def __init__(self, name: str, settings: ModelSettings, engine: Engine, instances: Sequence[Instance]) -> None:
        self.name = name
        self.settings = settings
        self.engine = engine
        self.instances = tuple(instances)
        self.residence = Residence(on_demand=settings.load == "on_demand")
        self.admission = Admission(self)
        self.quarantine = Quarantine(name)
        self.recent = Recent()
        self.is_leaving = False
        self.target_replicas: int | None = None
        self.version = "v1"
        self.trial: Trial[Model] | None = None
        self.previous: Model | None = None
        self.swaps: Counter[SwapResult] = Counter()
        self.recording = Recording(settings.recorded_requests) if settings.recorded_requests else None
        self.adapters = _adapters(settings)

    def adopt(self, settings: ModelSettings) -> None:
        """Take over settings that differ in what needs no new processes (`in_place`)."""
        self.settings = settings
        self.adapters = _adapters(settings)
        if settings.load == "on_demand":
            self.residence.on_demand = True
        self.admission.admit()

    def adapted(self, settings: ModelSettings) -> Sequence[Engine] | None:
        """The engines of its instances with settings that their processes can take over; None where one cannot."""
        engines = [self.engine_of(instance) for instance in self.instances]
        adapted = [engine.adapted(settings) if isinstance(engine, Adaptable) else None for engine in engines]
        known = [engine for engine in adapted if engine is not None]
        return known if len(known) == len(engines) else None

    def set_engines(self, engines: Sequence[Engine]) -> None:
        """Start and ask its instances by these engines from now on, each by its own."""
        self.engine = engines[0]
        for instance, engine in zip(self.instances, engines, strict=True):
            instance.engine = engine

    def choose(self, beginning: bytes | None = None) -> Instance:
        """The instance for the next request: the nearest to ready, and of several the one with the fewest requests.

        Of several that are ready, the prompt's `beginning` chooses the one that likely has it in its prefix cache.
        """
        if len(self.instances) == 1:  # the usual case, asked several times a request
            return self.instances[0]
        if beginning is not None:
            ready = [item for item in self.instances if item.state is State.READY and not item.is_avoided]
            if ready:
                return affinity.nearest(beginning, ready)
        return min(self.instances, key=_order)

    @property
    def has_prefix_caches(self) -> bool:
        """Whether it matters which of its instances gets a prompt."""
        return len(self.instances) > 1 and self.settings.caches_prefixes

    @property
    def has_way_back(self) -> bool:
        """Whether the version before is in memory still, and can take over at once."""
        return self.previous is not None and self.previous.state is State.READY

    @property
    def label(self) -> str:
        """Its name, and its version where that is not the first."""
        return self.name if self.version == "v1" else f"{self.name} {self.version}"

    def engine_of(self, instance: Instance) -> Engine:
        """The engine that starts and asks this instance."""
        return instance.engine or self.engine

    def granted_name(self, name: str | None) -> str:
        """Its name in keys and metrics, for requests that call it `name`: that of an adapter of it, or its own."""
        return name if name is not None and name in self.adapters else self.name

    @property
    def state(self) -> State:
        """The state of the instance that the next request goes to."""
        return self.choose().state

    @property
    def card(self) -> Card | None:
        """What the model offers, or offered when it was last loaded on demand; None while no instance is up."""
        if len(self.instances) == 1:
            return self.instances[0].card or self.residence.card
        return min(self.instances, key=lambda instance: _PREFERENCE.index(instance.state)).card or self.residence.card

    @property
    def takes_requests(self) -> bool:
        """Whether requests are answered, be it after a load."""
        return self.state is State.READY or not self.residence.is_open

    @property
    def is_idle(self) -> bool:
        """Whether no request runs or waits."""
        return not self.admission.running and not self.admission.waiting

    @property
    def idle_since_s(self) -> float:
        """When its last request ended, or it was loaded (`time.monotonic()`)."""
        return max(self.admission.used_at_s, self.residence.loaded_at_s)

    @property
    def restarts(self) -> int:
        """Restarts of all instances, and of single processes behind their connections."""
        connections = [instance.connection for instance in self.instances if instance.connection is not None]
        single_processes = sum(connection.restarts for connection in connections)
        return single_processes + sum(instance.restarts for instance in self.instances)

    @property
    def transitions(self) -> Counter[State]:
        """How often an instance entered each state."""
        return sum((instance.transitions for instance in self.instances), Counter[State]())

    @property
    def canaries(self) -> Counter[str]:
        """The results of the canaries of all instances ("ok", "failed")."""
        return sum((instance.canaries for instance in self.instances), Counter[str]())

    @property
    def canary_s(self) -> float:
        """Seconds that the canaries took which were answered."""
        return sum(instance.canary_s for instance in self.instances)

    @property
    def max_running(self) -> int:
        """How many requests may run: what the settings say, else what the instances can work on; 0 while unloaded."""
        if not self.residence.is_open:
            return 0
        capacity = sum(instance.card.max_running for instance in self.instances if instance.card)
        return self.settings.max_running or capacity or 1

    @property
    def max_waiting(self) -> int:
        """How many requests may wait."""
        return self.settings.max_waiting

    @property
    def max_tokens_in_flight(self) -> int | None:
        """How many tokens the requests that run or wait may take; None for no limit."""
        # Only engines that count tokens have it; pydantic takes 2 us to say that a field is missing.
        limit: int | None = vars(self.settings).get("max_tokens_in_flight")
        return limit


def _adapters(settings: ModelSettings) -> Collection[str]:
    return vars(settings).get("adapters") or ()  # only some engines have them


def _order(instance: Instance) -> tuple[int, bool, int]:
    return _PREFERENCE.index(instance.state), instance.is_avoided, instance.in_flight
