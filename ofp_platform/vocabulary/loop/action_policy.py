"""The action policy: who may do which action on what, and how webhooks are reached. A YAML file, without secrets."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from ofp_platform.vocabulary.canonical import digest_of
from ofp_platform.vocabulary.model import Model, Name, SafeIdentifier
from ofp_platform.vocabulary.serving import Version

EVERY_SCOPE = "*"
ACCOUNT_HOLD, NO_EXECUTOR = "account_hold", "none"
"""The executors that are no webhook: the holds that the plane keeps, and none."""
KEY_PLACE = "{key}"
"""The place of the idempotency key in a status URL."""
HttpUrl = Annotated[str, Field(pattern=r"^https?://[!-~]+$", max_length=2_000)]


class AllowedAction(Model):
    """One line of the allow-list. `scope`: a key type, the name of a webhook, or `*` for each."""

    actor: SafeIdentifier
    action_type: Name
    scope: Annotated[str, Field(pattern=r"^(\*|[a-z][a-z0-9_]{0,62})$")]


class Webhook(Model):
    """Where a webhook is. Its secret is in the environment variable that is named, as `whsec_` and base64."""

    url: HttpUrl
    secret_variable: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]{0,127}$")]
    status_url: HttpUrl | None = Field(
        default=None, description="asked whether an action was done, {key} for its idempotency key; none: an operator settles it"
    )
    timeout_ms: int = Field(default=5_000, ge=10, le=60_000, description="for each step of a request")

    @model_validator(mode="after")
    def _asks_by_key(self) -> Self:
        if self.status_url is not None and self.status_url.count(KEY_PLACE) != 1:
            raise ValueError(f"status_url: has {KEY_PLACE} once, where the idempotency key goes")
        return self


class Attempts(Model):
    """How often an intent is tried, or asked for by key, and how long the pauses are: doubled from the first to the longest."""

    most: int = Field(default=6, ge=1, le=100)
    first_pause_ms: int = Field(default=500, ge=1, le=3_600_000)
    longest_pause_ms: int = Field(default=60_000, ge=1, le=86_400_000)

    def pause_us(self, count: int) -> int:
        """The pause after so many attempts, from 1; microseconds."""
        return min(self.longest_pause_ms, self.first_pause_ms << min(count - 1, 40)) * 1_000


class ActionPolicy(Model):
    """One revision of it. What is not allowed here is denied."""

    kind: Literal["action_policy"] = "action_policy"
    contract_version: Version = "v0"
    revision: int = Field(ge=1, description="raised by whoever changes it")
    allow_list: tuple[AllowedAction, ...] = Field(strict=False, min_length=1)
    webhooks: dict[Name, Webhook] = Field(default={}, description="by the name that a target has")
    attempts: Attempts = Attempts()

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if len(set(self.allow_list)) < len(self.allow_list):
            raise ValueError("allow_list: has an entry twice")
        if own_names := {ACCOUNT_HOLD, NO_EXECUTOR} & self.webhooks.keys():
            raise ValueError(f"webhooks: {', '.join(sorted(own_names))} is a name of the plane's own; choose another")
        return self

    def wire(self) -> dict[str, Any]:
        """As digested: what is absent is left out."""
        return self.model_dump(mode="json", exclude_none=True)

    @property
    def rev(self) -> str:
        """Its revision and the SHA-256 over the canonical bytes of it all: what an outcome names."""
        return f"{self.revision}.{digest_of(self.wire())}"

    @property
    def longest_timeout_ms(self) -> int:
        """Of its webhooks; 0 without any."""
        return max((webhook.timeout_ms for webhook in self.webhooks.values()), default=0)

    def allows(self, actor: str, action_type: str, scope: str) -> bool:
        """Whether an entry names actor and action type, and this scope or each."""
        return any(
            (entry.actor, entry.action_type) == (actor, action_type) and entry.scope in (scope, EVERY_SCOPE)
            for entry in self.allow_list
        )
