"""Who pays whom: customers, accounts, cards, devices and merchants of a simulated town, as columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]
CURRENCIES = ("EUR", "GBP", "USD")
NEAR_MERCHANTS = 12


@dataclass(frozen=True)
class PopulationSize:
    """How many of each. An account has one to three cards; a device is used by one to a few cards."""

    customers: int = 3_500
    accounts: int = 4_000
    merchants: int = 1_500

    def __post_init__(self) -> None:
        if not 1 <= self.customers <= self.accounts:
            raise ValueError("every customer has an account: 1 <= customers <= accounts")
        if self.merchants < NEAR_MERCHANTS:
            raise ValueError(f"at least {NEAR_MERCHANTS} merchants, so that everybody has some nearby")


@dataclass(frozen=True)
class Population:
    """Columns by entity number. Amounts in minor units; `*_of_card` have one entry per card.

    near_merchants: int64[customers, NEAR_MERCHANTS], the nearest first.
    merchant_weight: popularity of the online merchants, sums to 1 over them. customer_amount: typical amount.
    merchant_factor: how much dearer than the customer's typical purchase one is there.
    """

    customer_of_account: Int64
    account_of_card: Int64
    device_of_card: Int64
    card_weight: Float64
    devices: int
    near_merchants: Int64
    merchant_weight: Float64
    merchant_factor: Float64
    customer_amount: Float64
    customer_currency: Int64

    @property
    def cards(self) -> int:
        """How many cards there are."""
        return len(self.account_of_card)


def make_population(size: PopulationSize, rng: np.random.Generator) -> Population:
    """A population drawn from `rng`: people and shops on a square, purses and prices lognormal, activity gamma."""
    customer_of_account = np.concatenate(
        [np.arange(size.customers), rng.integers(0, size.customers, size.accounts - size.customers)]
    )
    cards_of_account = rng.choice([1, 2, 3], size=size.accounts, p=[0.70, 0.22, 0.08])
    account_of_card = np.repeat(np.arange(size.accounts), cards_of_account)
    cards = len(account_of_card)

    # most cards live on their customer's own telephone, a few on a device that others use too
    shared_devices = max(1, size.customers // 50)
    on_shared = rng.random(cards) < 0.05
    own_device = customer_of_account[account_of_card]
    device_of_card = np.where(on_shared, size.customers + rng.integers(0, shared_devices, cards), own_device)

    homes = rng.random((size.customers, 2))
    shops = rng.random((size.merchants, 2))
    near = np.empty((size.customers, NEAR_MERCHANTS), dtype=np.int64)
    for start in range(0, size.customers, 1_000):  # bounds the distance matrix to 1,000 rows
        square = ((homes[start : start + 1_000, None, :] - shops[None, :, :]) ** 2).sum(axis=2)
        near[start : start + 1_000] = np.argsort(square, axis=1, kind="stable")[:, :NEAR_MERCHANTS]

    online = rng.random(size.merchants) < 0.25
    online[0] = True  # somebody must sell at a distance
    weight = np.where(online, rng.pareto(1.5, size.merchants) + 0.1, 0.0)
    return Population(
        customer_of_account=customer_of_account,
        account_of_card=account_of_card,
        device_of_card=device_of_card,
        card_weight=rng.gamma(1.2, 1.0, cards) + 0.02,
        devices=size.customers + shared_devices,
        near_merchants=near,
        merchant_weight=weight / weight.sum(),
        merchant_factor=rng.lognormal(0.0, 0.5, size.merchants),
        customer_amount=rng.lognormal(np.log(2_800), 0.6, size.customers),
        customer_currency=rng.choice(len(CURRENCIES), size=size.customers, p=[0.6, 0.25, 0.15]),
    )
