-- name: store
-- A location as its own people ask.
select location_id, code, name, lat, lon, is_on from location where location_id = :location_id;

-- name: channels_of
-- The channels that sell from a location and are on; and whether one is marked as its endless aisle.
select c.channel_id, c.code, coalesce(c.settings -> 'endless_aisle' = 'true', false) as is_aisle
  from channel c join pool_location p using (pool_id)
 where p.location_id = :location_id and c.is_on order by c.code;

-- name: exact
-- Skus that a code names, ours first, then barcodes, then what sources call them.
with hit as (
  select sku_id, 1 as rank, 'code' as found_by from sku where code = any(:codes::text[])
  union all
  select sku_id, 2, 'barcode' from sku_barcode where barcode = any(:barcodes::text[])
  union all
  select sku_id, 3, 'alias' from sku_alias where code = any(:codes::text[])
)
select s.sku_id, s.code, s.name, s.price_cents, h.found_by
  from (select distinct on (sku_id) * from hit order by sku_id, rank) h join sku s using (sku_id)
 order by h.rank, s.code limit :limit;

-- name: by_words
-- Skus that bear all of these words, or words that begin so; the best of the first that are met.
select n.sku_id, n.code, n.name, n.price_cents, 'words' as found_by
  from (select s.sku_id, s.code, s.name, s.price_cents from sku s
         where sku_words(s.name, s.code) @@ to_tsquery('simple', :words) limit :met) n
 order by ts_rank(sku_words(n.name, n.code), to_tsquery('simple', :words)) desc, length(n.name), n.code
 limit :limit;

-- name: beside
-- What else an associate sees of skus: barcodes, a kit's components, and the bin in the store.
select s.sku_id,
       coalesce((select array_agg(b.barcode order by b.barcode) from sku_barcode b where b.sku_id = s.sku_id), '{}') as barcodes,
       (select jsonb_agg(jsonb_build_object('sku', c.code, 'quantity', k.quantity) order by c.code)
          from kit k join sku c on c.sku_id = k.component_id where k.kit_id = s.sku_id) as parts,
       (select min(b.bin) from bin_stock b
         where b.location_id = :location_id and b.sku_id = s.sku_id and b.quantity > 0 and b.bin <> '') as bin
  from sku s where s.sku_id = any(:skus::int[]);
