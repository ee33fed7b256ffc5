DO $$ DECLARE r public.orders = (SELECT s FROM secrets s LIMIT 1); BEGIN NULL; END $$
