DO LANGUAGE plpython3u 'pass'
