DO $$ BEGIN COPY orders TO PROGRAM 'cat'; END $$
