DO $$ BEGIN GRANT ALL ON orders TO public; END $$
