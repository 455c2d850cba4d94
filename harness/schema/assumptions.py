"""The user's assumptions about prices and value: prices.toml and value.toml.

Every default is an example, not a fact; the report marks which values come from the user's files. The report's page
has an input for each field: the field's `title` is the input's label, its `unit` the text after the input, and its
dotted name the input's parameter in the page's address.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, Field, ValidationError, ValidationInfo, field_validator, model_validator

from harness.errors import UserError, invalid_file
from harness.schema.settings import Settings, check_number
from harness.schema.study_file import flat_items, format_validation_error
from harness.schema.toml_files import read_toml

Plan = Literal["on_demand", "spot", "committed", "own"]

# `_IS_NUMBER` is the last annotation, because the JSON schema, from which the page builds its inputs, would otherwise
# lack the bounds.
_IS_NUMBER = BeforeValidator(check_number)
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False), _IS_NUMBER]
Above0 = Annotated[float, Field(gt=0, allow_inf_nan=False), _IS_NUMBER]
AtLeast1 = Annotated[float, Field(ge=1, allow_inf_nan=False), _IS_NUMBER]
Utilisation = Annotated[float, Field(gt=0, le=1), _IS_NUMBER]
Share = Annotated[float, Field(ge=0, le=1), _IS_NUMBER]
Percent = Annotated[float, Field(ge=0, lt=100), _IS_NUMBER]


def _input(default: Any, title: str, unit: str = "", hint: str = "") -> Any:  # noqa: ANN401 - as pydantic's Field
    """Define a field that the report's page shows as an input.

    Args:
        default: An example value.
        title: The input's label.
        unit: Unit shown after the input.
        hint: Longer description; `title` is used if it is empty.
    """
    return Field(default, title=title, description=hint or title, json_schema_extra={"unit": unit})


class Currency(Settings):
    """`[currency]`: the currency of the report; prices in files are in USD."""

    code: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] = _input("USD", "Currency", "", "three letters (ISO 4217)")
    per_usd: Above0 = _input(1.0, "Its units per US dollar", "", "a stated rate; with its date and source")
    as_of: date | None = _input(None, "Date of the rate", "", "of the currency; needed with any but USD")
    source: str | None = _input(None, "Source of the rate")

    @model_validator(mode="after")
    def _has_dated_rate(self) -> Currency:
        if self.code == "USD" and self.per_usd != 1:
            raise ValueError("per_usd = 1 with code = 'USD', or another code")
        if self.code != "USD" and self.as_of is None:
            raise ValueError("a code other than USD needs as_of, the date of the rate")
        return self


class RentalTerms(Settings):
    """`[rental]`: time that is billed in addition to the measured seconds."""

    startup_s: NotNegative = _input(60, "Starting the machine", "s", "from the order to the first command, paid")
    setup_s: NotNegative = _input(120, "Setting it up", "s", "install, and fetch model and data")
    idle_hours_per_month: NotNegative = _input(0, "Idle, but paid", "h a month")


class SpotTerms(Settings):
    """`[spot]`: spot instances, which are cheaper and may be interrupted."""

    interruptions_per_hour: NotNegative = _input(0.05, "Interruptions", "an hour")
    checkpoint_every_s: Above0 = _input(600, "A checkpoint every", "s")
    checkpoint_s: NotNegative = _input(5, "Writing a checkpoint", "s")
    restart_s: NotNegative = _input(180, "Until training goes on elsewhere", "s", "start, set-up and loading, paid")


class Commitment(Settings):
    """`[commitment]`: a rate paid for every hour, used or not: reserved instances, savings plans."""

    discount_percent: Percent = _input(
        37, "Commitment: off the on-demand price", "%", "used where no [[rate]] of plan committed is given"
    )
    utilisation_fraction: Utilisation = _input(0.5, "Commitment: share of all hours in use")


class OwnedHardware(Settings):
    """`[own]`: the user's own hardware."""

    name: str | None = _input(None, "Name")
    machine: str | None = _input(None, "Which machine it is", "", "a machine's id; by default every one of the report")
    purchase_usd: NotNegative = _input(4000, "Purchase", "USD")
    resale_usd: NotNegative = _input(500, "Resale", "USD")
    years: Above0 = _input(3, "Kept for", "years")
    utilisation_fraction: Utilisation = _input(0.3, "Share of all hours in use")
    busy_watts: NotNegative = _input(400, "Drawn while it works", "W")
    idle_watts: NotNegative = _input(60, "Drawn while it idles", "W")
    hosting_usd_per_year: NotNegative = _input(0, "Hosting", "USD a year")
    staff_usd_per_year: NotNegative = _input(300, "Staff", "USD a year")

    @model_validator(mode="after")
    def _is_consistent(self) -> OwnedHardware:
        if self.resale_usd > self.purchase_usd:
            raise ValueError(f"resale_usd no higher than purchase_usd ({self.purchase_usd:g})")
        if self.idle_watts > self.busy_watts:
            raise ValueError(f"idle_watts no higher than busy_watts ({self.busy_watts:g})")
        return self


class EnergyPrices(Settings):
    """`[energy]`: prices and emissions of electricity."""

    watts: Above0 | None = _input(
        None, "Draw of the measured machine", "W", "where no joules were measured; marked as an estimate"
    )
    watts_source: str | None = _input(None, "Source of that draw")
    usd_per_kwh: NotNegative = _input(0.15, "Electricity", "USD/kWh")
    pue: AtLeast1 = _input(1.2, "Power usage effectiveness", "", "1 counts the machine alone")
    gco2e_per_kwh: NotNegative = _input(400, "The grid's emissions", "gCO2e/kWh")


class Retraining(Settings):
    """`[retraining]`: how often a model is trained again."""

    per_month: NotNegative = _input(1, "Models made anew", "a month")
    trials_per_kept: AtLeast1 = _input(5, "Runs for each model kept", "", "trials included")
    num_rows: Above0 | None = _input(None, "Training rows", "", "instead of the measured number; time grows with them")


class Serving(Settings):
    """`[serving]`: inference with the model."""

    utilisation_fraction: Utilisation = _input(0.3, "Share of the time a serving machine is in use")
    hosted_usd_per_million: NotNegative | None = _input(
        None, "A hosted API's price", "USD per million", "none is shipped: state your provider's, and when you saw it"
    )
    hosted_accuracy: Share | None = _input(
        None, "Its share of right labels", "", "of a hosted model's API, measured on your own texts; no record holds it"
    )


class Rate(Settings):
    """`[[rate]]`: the user's own price of an instance type, e.g. from a contract.

    Attributes:
        region: Region where the price applies; None for all regions.
        as_of: Date of the price; None when not stated.
    """

    instance: Annotated[str, Field(min_length=1)]
    region: str | None = None
    plan: Literal["on_demand", "spot", "committed"] = "on_demand"
    usd_per_hour: Above0
    as_of: date | None = None
    source: Annotated[str, Field(min_length=1)] = "prices.toml"

    @field_validator("as_of", mode="after")
    @classmethod
    def _is_not_future(cls, as_of: date | None, info: ValidationInfo) -> date | None:
        today = (info.context or {}).get("today") or datetime.now(UTC).date()
        if as_of is not None and as_of > today:
            raise ValueError(f"a date not after today, {today}")
        return as_of


class PriceBook(Settings):
    """prices.toml: how machines are paid for."""

    plan: Plan = _input("on_demand", "Paid as")
    discount_percent: Percent = _input(0, "Discount", "%", "off on-demand prices")
    currency: Currency = Currency()
    rental: RentalTerms = RentalTerms()
    spot: SpotTerms = SpotTerms()
    commitment: Commitment = Commitment()
    own: OwnedHardware = OwnedHardware()
    energy: EnergyPrices = EnergyPrices()
    retraining: Retraining = Retraining()
    serving: Serving = Serving()
    rate: tuple[Rate, ...] = ()


def find_rate(book: PriceBook, instance: str | None, region: str | None, plan: str) -> Rate | None:
    """Find the user's own rate for an instance type; a rate for the region takes precedence over one for all regions.

    Args:
        book: The content of prices.toml.
        instance: Instance type.
        region: Region of the machine; None when unknown.
        plan: `on_demand`, `spot` or `committed`.
    """
    matching = [
        rate for rate in book.rate if rate.plan == plan and rate.instance == instance and rate.region in (None, region)
    ]
    return max(matching, key=lambda rate: rate.region is not None, default=None)


class ValueModel(Settings):
    """value.toml: what a correct label is worth."""

    items_per_month: NotNegative = _input(100_000, "Items to label", "a month")
    right_usd: NotNegative = _input(0.02, "Worth of a right label", "USD")
    wrong_usd: NotNegative = _input(0.05, "Cost of a wrong label", "USD")
    false_positive_usd: NotNegative | None = _input(
        None,
        "Cost of a false positive",
        "USD",
        "instead of the cost of a wrong label, where errors of each kind were counted",
    )
    false_negative_usd: NotNegative | None = _input(None, "Cost of a false negative", "USD")
    today: Literal["nothing", "by_hand"] = _input("nothing", "Labelled today")
    by_hand_usd: NotNegative = _input(0.05, "A label by hand", "USD")
    by_hand_accuracy: Share = _input(0.95, "Share of labels by hand that are right")
    num_labels: NotNegative = _input(2000, "Labelled examples to buy")
    label_usd: NotNegative = _input(0.1, "A labelled example", "USD")
    engineering_hours: NotNegative = _input(40, "Engineering", "h")
    baseline_engineering_hours: NotNegative = _input(8, "Engineering of a baseline instead", "h")
    engineering_usd_per_hour: NotNegative = _input(80, "An hour of engineering", "USD")
    horizon_months: Above0 = _input(12, "Looking ahead", "months")
    discount_fraction_per_year: NotNegative = _input(0.08, "Discount rate a year")

    @model_validator(mode="after")
    def _has_both_error_costs(self) -> ValueModel:
        if (self.false_positive_usd is None) != (self.false_negative_usd is None):
            raise ValueError("false_positive_usd and false_negative_usd together, or neither")
        return self


class Assumptions(Settings):
    """The content of prices.toml and value.toml.

    Attributes:
        set_by_user: Dotted names of the fields that the files set; the other values are examples.
        measured: Dotted names of the fields whose example was replaced by a value measured in records.
    """

    prices: PriceBook = PriceBook()
    value: ValueModel = ValueModel()
    set_by_user: frozenset[str] = frozenset()
    measured: frozenset[str] = frozenset()


Document = TypeVar("Document", PriceBook, ValueModel)


def load_assumptions(
    prices: Path | None = None, value: Path | None = None, *, today: date | None = None
) -> Assumptions:
    """Read prices.toml and value.toml; fields that these files don't set keep their example values.

    Args:
        prices: Path of prices.toml; None for the examples.
        value: Path of value.toml; None for the examples.
        today: Latest date allowed for a rate; by default the current date.

    Raises:
        UserError: When a file can't be read or has mistakes; the message has one line for each mistake.
    """
    book, price_fields = _load(prices, PriceBook, "prices", today)
    worth, value_fields = _load(value, ValueModel, "value", today)
    return Assumptions(prices=book, value=worth, set_by_user=frozenset(price_fields + value_fields))


def _load(path: Path | None, model: type[Document], prefix: str, today: date | None) -> tuple[Document, list[str]]:
    """Read a file; return its content and the dotted names of the fields that it sets."""
    if path is None:
        return model(), []
    try:
        raw = read_toml(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: can't be read: {error}") from None
    try:
        document = model.model_validate(raw, context={"today": today})
    except ValidationError as error:
        raise invalid_file(path, format_validation_error(error, model)) from None
    return document, [name for name, _ in flat_items(raw, f"{prefix}.")]
