-- The life of an order before its release: amended, held, waiting for receipts; what its channel is told of it.

-- A shop that sells by itself has deducted units that a line has more of, too.
create function told_by_more() returns trigger language plpgsql as $$
begin
  insert into touched (sku_id, channel_id, sold)
  select coalesce(k.kit_id, new.sku_id), o.channel_id, (new.quantity - old.quantity) / coalesce(k.per, 1)
    from orders o
    left join lateral kit_sold(o.channel_id, new.sku, new.sku_id) k on new.part > 0
   where o.order_id = new.order_id and o.sold_there and (new.part <= 1);
  return null;
end $$;
create trigger order_line_sold_more after update of quantity on order_line for each row
  when (new.quantity > old.quantity and old.sku_id is not null) execute function told_by_more();
