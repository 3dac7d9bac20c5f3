"""Names that columns and files of shops have, in the languages that exports are often in."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

# The first word of a line is the field; names after it, the usual ones first. Without accents, in snake case.
_COLUMNS = {
    "user_id": """user_id user uid customer_id customer client_id client member_id member account_id account visitor_id
        visitor buyer_id buyer shopper_id shopper household_id household household_key reviewer_id profile_id person_id
        person contact_id customer_no customer_number cust_id u kunde kunden_id kundennummer kundennr kunden_nr kdnr
        kdnr nutzer nutzer_id benutzer benutzer_id besteller kaufer id_client numero_client no_client code_client
        utilisateur id_utilisateur acheteur cliente id_cliente codigo_cliente usuario id_usuario comprador
        cliente_id utente id_utente klant klant_id klantnummer gebruiker session_id email""",
    "item_id": """item_id item product_id product sku article_id article asin parent_asin stock_code variant_id
        product_no product_number product_code item_no item_code article_no article_number ean gtin upc isbn movie_id
        film_id book_id song_id track_id content_id listing_id offer_id sku_id iid i artikel artikel_id artikelnummer
        artikelnr artikel_nr artnr art_nr produkt produkt_id produktnummer produktnr produit id_produit produit_id
        reference ref ref_produit code_produit code_article id_article numero_article producto id_producto producto_id
        codigo_producto codigo articulo id_articulo prodotto id_prodotto prodotto_id codice codice_prodotto articolo
        id code nummer""",
    "event_time": """event_time timestamp ordered_at order_date order_time purchased_at purchase_date purchase_time
        created_at time date datetime event_date event_timestamp transaction_date transaction_time invoice_date
        occurred_at clicked_at viewed_at rated_at review_time unix_review_time sold_at sale_date placed_at paid_at
        order_timestamp ts t created day datum zeit zeitpunkt zeitstempel uhrzeit bestelldatum bestellzeit bestellt_am
        kaufdatum gekauft_am auftragsdatum rechnungsdatum belegdatum date_commande date_achat date_de_commande
        commande_le achete_le horodatage fecha fecha_pedido fecha_compra fecha_de_pedido data data_ordine data_acquisto
        data_pedido data_compra besteldatum orderdatum""",
    "updated_at": """updated_at updated modified_at modified last_modified last_updated changed_at changed last_change
        last_update update_time update_date modification_time version_time geandert geandert_am anderungsdatum
        geaendert geaendert_am aenderungsdatum aktualisiert aktualisiert_am bearbeitet_am letzte_anderung modifie_le
        date_modification date_maj mis_a_jour maj_le actualizado actualizado_en fecha_actualizacion fecha_modificacion
        modificato modificato_il aggiornato aggiornato_il data_modifica gewijzigd gewijzigd_op bijgewerkt""",
    "event_id": """event_id event_uuid order_line_id line_id order_item_id transaction_id order_id order_no
        order_number order invoice_no invoice_id invoice receipt_id basket_id log_id row_id uuid bestellung_id
        bestell_id bestellnummer bestellnr bestell_nr bestellung auftrag auftragsnummer auftragsnr belegnummer belegnr
        rechnungsnummer positions_id commande id_commande commande_id numero_commande num_commande no_commande
        numero_de_commande pedido id_pedido pedido_id numero_pedido num_pedido ordine id_ordine ordine_id numero_ordine
        order_nummer ordernummer id""",
    "event_type": """event_type event action activity interaction interaction_type event_name behavior behaviour
        behavior_type action_type verb type ereignis aktion vorgang typ art evenement type_evenement action_type evento
        tipo_evento accion tipo azione gebeurtenis""",
    "value": """quantity qty rating score stars value pieces units count amount menge anzahl stuckzahl stueckzahl stuck
        bewertung sterne quantite qte nombre_articles note cantidad cant valoracion puntuacion quantita valutazione
        hoeveelheid aantal dwell_time duration""",
    "title": """title name product_name item_name product_title item_title article_name movie_title headline label
        titel bezeichnung artikelbezeichnung produktbezeichnung artikelname produktname produkttitel artikeltext nom
        nom_produit nom_du_produit libelle libelle_produit designation intitule titre titulo nombre nombre_producto
        titolo nome nome_prodotto nome_produto naam productnaam omschrijving description desc""",
    "category": """category categories category_name department category_path product_category item_category
        main_category main_cat product_type product_group item_group genre genres section segment taxonomy
        breadcrumb breadcrumbs
        collection class kategorie kategorien warengruppe artikelgruppe produktgruppe abteilung sparte bereich
        categorie categories rayon famille gamme categoria categorias departamento seccion familia reparto categorie
        afdeling productgroep group type""",
    "brand": """brand brand_name manufacturer maker vendor producer publisher marke markenname hersteller lieferant
        marque fabricant marca fabricante produttore merk fabrikant""",
    "price": """price unit_price list_price sale_price retail_price price_eur price_usd preis einzelpreis verkaufspreis
        vk_preis vk stuckpreis prix prix_unitaire prix_ttc prix_ht prix_eur precio precio_unitario pvp prezzo
        prezzo_unitario preco prijs""",
    "keywords": """keywords keyword tags tag search_terms labels stichworte schlagworte schlagworter stichworter
        suchbegriffe mots_cles motscles etiquettes palabras_clave etiquetas parole_chiave trefwoorden""",
    "attributes": """attributes description features details detail_desc product_desc item_desc
        long_desc short_desc long_description short_description product_description
        item_description specifications specs color colour size material style flavour flavor year release_year
        beschreibung artikelbeschreibung produktbeschreibung langtext kurztext merkmale eigenschaften farbe grosse
        groesse couleur taille matiere caracteristiques descriptif description_produit descripcion color talla
        descrizione colore taglia beschrijving kleur maat summary body text""",
}
_EVENT_FILES = """orders order events event log logs clicks click views view purchases purchase sales sale transactions
    transaction interactions interaction ratings rating reviews review carts baskets sessions activity history invoices
    order_items order_lines orderlines bestellungen bestellung auftrage verkaufe umsatze klicks commandes commande
    ventes achats clics pedidos pedido ventas compras ordini ordine vendite acquisti bestellingen verkopen"""
_ITEM_FILES = """products product items item catalogue catalog articles article skus assortment inventory movies films
    books meta metadata artikel produkte produkt katalog sortiment stammdaten artikelstamm produits produit
    referentiel productos producto catalogo articulos prodotti prodotto articoli producten"""
# The type of all events of a file, by a word in its name.
_TYPES = {
    "purchase": """orders order purchases purchase sales sale transactions transaction invoices order_items order_lines
        bestellungen bestellung auftrage verkaufe commandes ventes achats pedidos ventas compras ordini vendite acquisti
        bestellingen""",
    "click": "clicks click klicks clics",
    "view": "views view pageviews impressions",
    "rating": "ratings rating reviews review bewertungen",
    "cart": "carts cart baskets basket",
}
_WEAK = {"id", "code", "nummer", "i", "u", "t", "day", "data", "type", "art", "group", "description", "desc", "text",
         "body", "amount", "order", "ref", "email", "session_id", "created", "class", "note", "label", "tipo", "nombre",
         "nome", "vendor"}  # fmt: skip


@lru_cache(maxsize=4096)
def plain(name: str) -> str:
    """The name in snake case without accents: ``Größe (cm)`` gives ``grosse_cm``, ``CustomerID`` ``customer_id``."""
    split = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name.replace("ß", "ss"))
    ascii_only = unicodedata.normalize("NFKD", split).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "_", ascii_only.lower()).strip("_")


@lru_cache(maxsize=4096)
def name_score(field: str, column: str) -> float:
    """How well ``column`` names ``field``, from 0 to 1."""
    names, name = _COLUMNS[field].split(), plain(column)
    squeezed = name.replace("_", "")
    best = 0.0
    for place, known in enumerate(names):
        if squeezed == known.replace("_", ""):
            score = 0.45 if known in _WEAK else 1.0 - 0.1 * place / len(names)
        elif known not in _WEAK and len(known) > 2 and f"_{known}_" in f"_{name}_":
            score = 0.6 - 0.1 * place / len(names)
        else:
            continue
        best = max(best, score)
    return best


def file_score(name: str) -> float:
    """1 for a file named as events are, -1 for one named as items are, 0 for others."""
    words = f"_{plain(re.sub(r'[.].*$', '', name.rsplit('/', 1)[-1]))}_{plain(name.rpartition('/')[0])}_"
    events = any(f"_{one}_" in words for one in _EVENT_FILES.split())
    items = any(f"_{one}_" in words for one in _ITEM_FILES.split())
    return float(events) - float(items)


def event_type_of(name: str) -> str | None:
    """The type of the events of a file by its name, such as ``purchase`` for ``orders-2024.csv``."""
    words = f"_{plain(name)}_"
    return next((kind for kind, names in _TYPES.items() if any(f"_{one}_" in words for one in names.split())), None)
