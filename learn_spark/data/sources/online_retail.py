"""UCI Online Retail: one CSV a day of invoice lines, each with its product's description and price.

Source: Chen, Sain and Guo 2012, UCI Machine Learning Repository (CC BY 4.0).
"""

from __future__ import annotations

from learn_spark.core.settings.source import FilesSettings, FilesSourceSettings
from learn_spark.data.sources.configured import ConfiguredSource

# Lines without a customer are counter sales, and stock codes without five digits are postage, fees and samples. Neither
# is a user's choice of an item. An invoice that starts with C is a return.
_OF_A_CUSTOMER = r"CustomerID is not null and StockCode rlike '^[0-9]{5}'"


def online_retail() -> ConfiguredSource:
    """Items: stock code, description, price, as of the invoice. Events: purchase or return, value = pieces.

    An invoice's lines of one stock code are one event (event_id = invoice/stock code); of several lines the one with
    the most pieces wins. Times are in minutes; all lines of an invoice share one.
    """
    return ConfiguredSource(
        FilesSourceSettings(
            format="files",
            path=".",
            time_unit="iso",
            items=FilesSettings(
                files="*.csv*",
                columns={
                    "item_id": "StockCode",
                    "title": "Description",
                    "price": "UnitPrice",
                    "updated_at": "InvoiceDate",
                },
                where=_OF_A_CUSTOMER,
            ),
            events=FilesSettings(
                files="*.csv*",
                columns={
                    "event_id": "concat(InvoiceNo, '/', StockCode)",
                    "user_id": "CustomerID",
                    "item_id": "StockCode",
                    "event_type": "if(try_cast(Quantity as double) < 0, 'return', 'purchase')",
                    "value": "coalesce(cast(abs(try_cast(Quantity as double)) as string), Quantity)",
                    "event_time": "InvoiceDate",
                },
                where=_OF_A_CUSTOMER,
            ),
        )
    )
