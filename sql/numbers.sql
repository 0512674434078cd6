-- name: supplies
-- The availability rows of these skus, without taking them.
select a.sku_id, s.code, s.is_kit, a.version, a.layout_id, a.supply, a.reserved, a.taken
  from availability a join sku s using (sku_id)
 where a.sku_id = any(:skus::int[]) order by a.sku_id;

-- name: parts_of
-- The components of each of these skus that is a kit.
select k.kit_id, k.component_id, c.code, k.quantity
  from kit k join sku s on s.sku_id = k.kit_id and s.is_kit join sku c on c.sku_id = k.component_id
 where k.kit_id = any(:skus::int[]) order by k.kit_id, k.component_id;

-- name: coming
-- What is expected of each of these skus from this day on, by day and segment of its layout, with the last day on which
-- it still backs promises.
select i.sku_id, i.due_on, g.segment, sum(i.quantity)::int as quantity, i.due_on + o.tolerance_days as until_on
  from incoming i
  join availability a using (sku_id)
  join source o using (source_id)
  join location l on l.location_id = i.location_id and l.is_on
  join layout_location g on g.layout_id = a.layout_id and g.location_id = i.location_id
 where i.sku_id = any(:skus::int[]) and i.quantity > 0 and i.due_on + o.tolerance_days >= :today
 group by i.sku_id, i.due_on, g.segment, o.tolerance_days order by i.sku_id, i.due_on, g.segment, o.tolerance_days;

-- name: rulebook_version
-- The version of what shapes numbers.
select version from rulebook;
